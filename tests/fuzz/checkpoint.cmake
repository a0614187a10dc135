# SPDX-License-Identifier: Apache-2.0
hotset_fuzz(checkpoint_header_fuzz SOURCES checkpoint_header_fuzz.cc LIBS hotset_checkpoint
            CORPUS checkpoint_header)
hotset_fuzz(checkpoint_index_fuzz SOURCES checkpoint_index_fuzz.cc LIBS hotset_checkpoint
            CORPUS checkpoint_index)
hotset_fuzz(checkpoint_config_fuzz SOURCES checkpoint_config_fuzz.cc
            LIBS hotset_checkpoint hotset_model CORPUS checkpoint_config)
hotset_fuzz(checkpoint_bnb_state_fuzz SOURCES checkpoint_bnb_state_fuzz.cc LIBS hotset_checkpoint
            CORPUS checkpoint_bnb_state)
