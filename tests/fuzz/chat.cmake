# SPDX-License-Identifier: Apache-2.0
hotset_fuzz(chat_template_parse_fuzz SOURCES ${CMAKE_CURRENT_LIST_DIR}/chat_template_parse_fuzz.cc LIBS hotset_chat
            CORPUS chat_template_parse)
hotset_fuzz(chat_template_render_fuzz SOURCES ${CMAKE_CURRENT_LIST_DIR}/chat_template_render_fuzz.cc LIBS hotset_chat
            CORPUS chat_template_render)
hotset_fuzz(chat_tool_calls_fuzz SOURCES ${CMAKE_CURRENT_LIST_DIR}/chat_tool_calls_fuzz.cc LIBS hotset_chat
            CORPUS chat_tool_calls)
