# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model's byte-level BPE tokenizer and writes its side files.

The pre-tokenizer, normalizer and the 26 added tokens are those of the Qwen3 family; the merges are
learnt from generate.py's text. Also checks that generate.render() writes what the chat template
writes. Use: make_tokenizer.py OUT_DIR (needs tokenizers, jinja2; versions in make_demo.sh).
"""

import json
import os
import random
import re
import shutil
import sys

import jinja2
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import generate

ENTRIES = 1536  # rows of the embedding; the last few have no token, as in the large models
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|>
<|box_start|> <|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|>
<|vision_pad|> <|image_pad|> <|video_pad|>""".split()
PLAIN = """<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|>
<|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think>""".split()
LEARNT = 1500  # bytes and merges; ids LEARNT .. LEARNT+25 are the added tokens


def corpus(conversations):
    rng = random.Random("tokenizer")
    for _ in range(conversations):
        table = generate.LONG if rng.random() < 0.2 else generate.SHORT
        yield generate.render(generate.training_conversation(rng, table))


def added(text, special):
    return tokenizers.AddedToken(text, special=special, normalized=False)


def train_tokenizer():
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=LEARNT, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    marks = re.compile("|".join(re.escape(t) for t in SPECIAL + PLAIN))
    pieces = (piece for text in corpus(30000) for piece in marks.split(text) if piece)
    tokenizer.train_from_iterator(pieces, trainer)
    assert tokenizer.get_vocab_size() == LEARNT, tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([added(t, True) for t in SPECIAL])
    tokenizer.add_tokens([added(t, False) for t in PLAIN])
    return tokenizer


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def model_config(ids):
    """The field spelling of the original releases (transformers 4.57)."""
    return {
        "architectures": ["Qwen3NextForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"], "decoder_sparse_step": 1,
        "eos_token_id": ids["<|im_end|>"], "full_attention_interval": 4, "head_dim": 64,
        "hidden_act": "silu", "hidden_size": 256, "initializer_range": 0.02,
        "intermediate_size": 512, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 64,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 64,
        "max_position_embeddings": 32768, "mlp_only_layers": [], "model_type": "qwen3_next",
        "moe_intermediate_size": 64, "norm_topk_prob": True, "num_attention_heads": 4,
        "num_experts": 32, "num_experts_per_tok": 6, "num_hidden_layers": 8,
        "num_key_value_heads": 2, "output_router_logits": False, "partial_rotary_factor": 0.25,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000000,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 128,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "transformers_version": "4.57.6", "use_cache": True, "use_sliding_window": False,
        "vocab_size": ENTRIES,
    }


def write_side_files(folder, tokenizer):
    ids = {t: tokenizer.token_to_id(t) for t in SPECIAL + PLAIN}
    decoder = {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                        "single_word": False, "special": t in SPECIAL} for t, i in ids.items()}
    write_json(folder, "config.json", model_config(ids))
    write_json(folder, "generation_config.json", {
        "bos_token_id": ids["<|endoftext|>"], "do_sample": True,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"], "temperature": 0.7, "top_k": 20, "top_p": 0.8,
        "transformers_version": "4.57.6"})
    write_json(folder, "tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": decoder,
        "additional_special_tokens": SPECIAL[1:], "bos_token": None,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 32768, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})
    here = os.path.dirname(os.path.abspath(__file__))
    shutil.copy(os.path.join(here, "chat_template.jinja"), folder)


def check_template(folder):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    with open(os.path.join(folder, "chat_template.jinja")) as file:
        template = environment.from_string(file.read())
    rng = random.Random("template")
    for _ in range(2000):
        found = generate.training_conversation(rng, generate.LONG)
        for ask in (False, True):
            want = template.render(messages=found.messages, tools=found.tools,
                                   add_generation_prompt=ask)
            assert want == generate.render(found, add_generation_prompt=ask), want


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    tokenizer = train_tokenizer()
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    write_side_files(folder, tokenizer)
    check_template(folder)
    text = "<|im_start|>user\nWhat is 347 + 85?<|im_end|>\n<|im_start|>assistant\n"
    print(tokenizer.encode(text).tokens)


if __name__ == "__main__":
    main()
