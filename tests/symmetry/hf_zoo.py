"""Families of `transformers` at tiny random sizes, each as a module that returns logits only."""

# ruff: noqa: C408 (settings read as the constructors that they are for)
from __future__ import annotations

import os

import torch
from torch import nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import transformers


class Logits(nn.Module):
    """The net without its cache and hidden states."""

    def __init__(self, net, **options):
        super().__init__()
        self.net = net
        self.options = options

    def forward(self, *inputs):
        return self.net(*inputs, **self.options).logits


class TwoInputs(Logits):
    """Encoder-decoder nets: source and target tokens."""

    def forward(self, source, target):
        return self.net(input_ids=source, decoder_input_ids=target, **self.options).logits


class Sounds(Logits):
    """Speech nets: features and target tokens."""

    def forward(self, features, target):
        return self.net(input_features=features, decoder_input_ids=target, **self.options).logits


TEXT = dict(vocab_size=19, hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
FEED = dict(intermediate_size=40)
PLACES = dict(max_position_embeddings=16)
TOKENS = (3, 6)


def tokens():
    return torch.randint(2, 19, TOKENS)


def images(size=32):
    return torch.randn(2, 3, size, size)


def text(config, model, **extra):
    options = dict(use_cache=False) if "CausalLM" in model or "LMHead" in model else {}

    def build():
        made = getattr(transformers, config)(**{**TEXT, **FEED, **PLACES, **extra})
        return Logits(getattr(transformers, model)(made), **options), (tokens(),)

    return build


def plain(config, model, inputs, wrapper=Logits, options=None, **settings):
    def build():
        made = getattr(transformers, config)(**settings)
        return wrapper(getattr(transformers, model)(made), **(options or {})), inputs()

    return build


def pair():
    return tokens(), tokens()[:, :4]


SEQ2SEQ = dict(
    vocab_size=19,
    d_model=24,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=3,
    decoder_attention_heads=3,
    encoder_ffn_dim=40,
    decoder_ffn_dim=40,
    max_position_embeddings=16,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=1,
    decoder_start_token_id=1,
)
T5 = dict(
    vocab_size=19, d_model=24, d_kv=8, d_ff=40, num_layers=1, num_decoder_layers=1, num_heads=3
)
LLAMA = dict(num_attention_heads=6, num_key_value_heads=2, hidden_size=48)
VISION = dict(image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=2)
VIT = dict(**VISION, num_attention_heads=3, intermediate_size=40, num_labels=4)
NO_CACHE = dict(use_cache=False)

HF_ZOO = {
    "bert": text("BertConfig", "BertForSequenceClassification"),
    "roberta": text(
        "RobertaConfig", "RobertaForSequenceClassification", max_position_embeddings=20
    ),
    "electra": text("ElectraConfig", "ElectraForSequenceClassification", embedding_size=12),
    "albert": text("AlbertConfig", "AlbertForSequenceClassification", embedding_size=12),
    "distilbert": plain(
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        lambda: (tokens(),),
        vocab_size=19,
        dim=24,
        n_layers=2,
        n_heads=3,
        hidden_dim=40,
        max_position_embeddings=16,
    ),
    "deberta": text("DebertaV2Config", "DebertaV2ForSequenceClassification", pooler_hidden_size=24),
    "mobilebert": plain(
        "MobileBertConfig",
        "MobileBertForSequenceClassification",
        lambda: (tokens(),),
        vocab_size=19,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        intra_bottleneck_size=12,
        embedding_size=12,
        max_position_embeddings=16,
    ),
    "gpt2": plain(
        "GPT2Config",
        "GPT2LMHeadModel",
        lambda: (tokens(),),
        options=NO_CACHE,
        vocab_size=19,
        n_embd=24,
        n_layer=2,
        n_head=3,
        n_positions=16,
    ),
    "gpt_neox": text("GPTNeoXConfig", "GPTNeoXForCausalLM"),
    "opt": plain(
        "OPTConfig",
        "OPTForCausalLM",
        lambda: (tokens(),),
        options=NO_CACHE,
        vocab_size=19,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        ffn_dim=40,
        max_position_embeddings=16,
        word_embed_proj_dim=24,
    ),
    "llama": text("LlamaConfig", "LlamaForCausalLM", **LLAMA),
    "mistral": text("MistralConfig", "MistralForCausalLM", **LLAMA),
    "qwen2": text("Qwen2Config", "Qwen2ForCausalLM", **LLAMA),
    "qwen3": text("Qwen3Config", "Qwen3ForCausalLM", head_dim=8, **LLAMA),
    "gemma": text("GemmaConfig", "GemmaForCausalLM", head_dim=8, **LLAMA),
    "phi": text("PhiConfig", "PhiForCausalLM"),
    "bloom": plain(
        "BloomConfig",
        "BloomForCausalLM",
        lambda: (tokens(),),
        options=NO_CACHE,
        vocab_size=19,
        hidden_size=24,
        n_layer=2,
        n_head=3,
    ),
    "bart": plain(
        "BartConfig", "BartForConditionalGeneration", pair, TwoInputs, NO_CACHE, **SEQ2SEQ
    ),
    "t5": plain("T5Config", "T5ForConditionalGeneration", pair, TwoInputs, NO_CACHE, **T5),
    "t5_gated": plain(
        "T5Config",
        "T5ForConditionalGeneration",
        pair,
        TwoInputs,
        NO_CACHE,
        feed_forward_proj="gated-gelu",
        **T5,
    ),
    "whisper": plain(
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        lambda: (torch.randn(2, 8, 32), torch.randint(2, 19, (2, 4))),
        Sounds,
        NO_CACHE,
        num_mel_bins=8,
        max_source_positions=16,
        max_target_positions=16,
        **{k: v for k, v in SEQ2SEQ.items() if k != "max_position_embeddings"},
    ),
    "vit": plain("ViTConfig", "ViTForImageClassification", lambda: (images(),), **VIT),
    "deit": plain("DeiTConfig", "DeiTForImageClassification", lambda: (images(),), **VIT),
    "beit": plain("BeitConfig", "BeitForImageClassification", lambda: (images(),), **VIT),
    "swin": plain(
        "SwinConfig",
        "SwinForImageClassification",
        lambda: (images(),),
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        num_labels=4,
    ),
    "convnext": plain(
        "ConvNextConfig",
        "ConvNextForImageClassification",
        lambda: (images(),),
        hidden_sizes=[8, 12],
        depths=[1, 1],
        num_stages=2,
        num_labels=4,
    ),
    "convnext_v2": plain(
        "ConvNextV2Config",
        "ConvNextV2ForImageClassification",
        lambda: (images(),),
        hidden_sizes=[8, 12],
        depths=[1, 1],
        num_stages=2,
        num_labels=4,
    ),
    "resnet": plain(
        "ResNetConfig",
        "ResNetForImageClassification",
        lambda: (images(),),
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_labels=4,
    ),
    "regnet": plain(
        "RegNetConfig",
        "RegNetForImageClassification",
        lambda: (images(),),
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        groups_width=4,
        num_labels=4,
    ),
    "mobilenet_v1": plain(
        "MobileNetV1Config",
        "MobileNetV1ForImageClassification",
        lambda: (images(),),
        depth_multiplier=0.25,
        min_depth=4,
        num_labels=4,
    ),
    "mobilenet_v2": plain(
        "MobileNetV2Config",
        "MobileNetV2ForImageClassification",
        lambda: (images(),),
        depth_multiplier=0.25,
        min_depth=4,
        num_labels=4,
    ),
    "mobilevit": plain(
        "MobileViTConfig",
        "MobileViTForImageClassification",
        lambda: (images(),),
        image_size=32,
        hidden_sizes=[12, 16, 20],
        neck_hidden_sizes=[4, 8, 8, 8, 12, 16, 20],
        num_attention_heads=2,
        num_labels=4,
    ),
    "segformer": plain(
        "SegformerConfig",
        "SegformerForImageClassification",
        lambda: (images(),),
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        num_labels=4,
    ),
    "mixtral": text("MixtralConfig", "MixtralForCausalLM", num_local_experts=3, **LLAMA),
    "mamba": plain(
        "MambaConfig",
        "MambaForCausalLM",
        lambda: (tokens(),),
        options=NO_CACHE,
        vocab_size=19,
        hidden_size=12,
        state_size=4,
        num_hidden_layers=1,
    ),
}
