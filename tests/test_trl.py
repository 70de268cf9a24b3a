"""TRL's own trainer with a Janus model as its reward: one step of a tiny random language model that writes prompts."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from janus_r1.chain import Settings
from janus_r1.errors import UserError
from janus_r1.rewards.janus import JanusReward

ONE_DRAFT = Settings(rounds=1, max_reason_tokens=1)


def writer() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    words = ["<pad>", "<eos>", "a", "red", "blue", "circle", "ring", "star", "?"]
    built = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<pad>", eos_token="<eos>", unk_token="?", padding_side="left"
    )
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(words), pad_token_id=0, eos_token_id=1, bos_token_id=None, **size)
    return LlamaForCausalLM(config), tokenizer


def test_grpo_takes_it(tiny, tmp_path):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    asked = []

    class Watched(JanusReward):
        def __call__(self, prompts, completions, **columns):
            scores = super().__call__(prompts, completions, **columns)
            asked.append((prompts, completions, scores))
            return scores

    model, tokenizer = writer()
    before = {name: value.clone() for name, value in model.named_parameters()}
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=4,
        learning_rate=0.1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = trl.GRPOTrainer(
        model,
        reward_funcs=Watched(tiny, draws=ONE_DRAFT),
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a red circle", "a blue star"]}),
        processing_class=tokenizer,
    )
    trainer.train()
    ((prompts, completions, scores),) = asked
    assert len(prompts) == len(completions) == len(scores) == 4 and set(prompts) <= {"a red circle", "a blue star"}
    given = [score for score in scores if score is not None]
    assert given and all(0 < score < 1 for score in given)
    (logged,) = [row for row in trainer.state.log_history if "rewards/janus/mean" in row]
    assert logged["rewards/janus/mean"] == pytest.approx(sum(given) / len(given), abs=1e-4)
    if len(set(given)) > 1:
        assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_texts_are_drawn_and_judged_by_the_prompt(tiny):
    reward = JanusReward(tiny, draws=ONE_DRAFT)
    said = [[{"role": "assistant", "content": "a large ring"}], [{"role": "assistant", "content": " "}]]
    asked = [[{"role": "user", "content": "a ring"}]] * 2
    first, empty = reward(prompts=asked, completions=said)
    assert 0 < first < 1 and empty is None
    assert reward(prompts=["a ring"], completions=["a large ring"]) == [pytest.approx(first)]
    with pytest.raises(UserError, match="draws=Settings"):
        JanusReward(tiny)(prompts=["a ring"], completions=["a large ring"])
