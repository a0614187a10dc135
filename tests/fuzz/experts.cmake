# SPDX-License-Identifier: Apache-2.0
hotset_fuzz(experts_routing_trace_fuzz SOURCES experts_routing_trace_fuzz.cc LIBS hotset_experts
            CORPUS experts_routing_trace)
hotset_fuzz(experts_routing_profile_fuzz SOURCES experts_routing_profile_fuzz.cc LIBS hotset_experts
            CORPUS experts_routing_profile)
