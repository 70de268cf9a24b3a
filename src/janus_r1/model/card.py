"""The model card that every saved folder carries."""

from __future__ import annotations

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: any-to-any
tags: [janus, text-to-image, introspection, janus-r1]
---

# A Janus model saved by janus-r1

Architecture: transformers' `JanusForConditionalGeneration` with {parameters:.1f} M parameters; images of
{size}x{size} pixels are {tokens} ids of {codes} codes.

```python
from janus_r1 import JanusR1

model = JanusR1.from_pretrained("path/to/this/folder")
chain = model.generate("a red circle left of a blue square")[0]
print(chain.rounds[0].verdict.text)
```

It draws, says Yes or No to its own drawing and why, and redraws until it is satisfied. What it was
trained on and what it scores is in the run folder beside it (`recipe.json`, `metrics.jsonl`).
"""


def card(parameters: int, size: int, tokens: int, codes: int) -> str:
    """README.md of a model folder."""
    return CARD.format(parameters=parameters / 1e6, size=size, tokens=tokens, codes=codes)
