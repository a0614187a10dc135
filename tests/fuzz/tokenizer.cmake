# SPDX-License-Identifier: Apache-2.0
hotset_fuzz(tokenizer_file_fuzz SOURCES tokenizer_file_fuzz.cc LIBS hotset_tokenizer
            CORPUS tokenizer_file)
hotset_fuzz(tokenizer_text_fuzz SOURCES tokenizer_text_fuzz.cc ../tokenizer/small_tokenizer.cc
            LIBS hotset_tokenizer CORPUS tokenizer_text)
hotset_fuzz(tokenizer_ids_fuzz SOURCES tokenizer_ids_fuzz.cc ../tokenizer/small_tokenizer.cc
            LIBS hotset_tokenizer CORPUS tokenizer_ids)
