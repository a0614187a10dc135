# SPDX-License-Identifier: Apache-2.0
hotset_fuzz(server_request_fuzz SOURCES server_request_fuzz.cc
            LIBS hotset_server CORPUS server_request)
