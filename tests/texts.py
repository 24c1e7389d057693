"""Real texts of very different lengths and scripts, for tests of the real model."""

import orjson

from compose.corpus import reference_items

SCRIPTS = {
    "Korean": "안녕하세요, 저는 학생입니다. 오늘은 날씨가 아주 좋네요! 그렇지 않습니까? ",
    "Chinese": "今天天气很好。我们去公园吧！你觉得怎么样？",
    "Japanese": "これは日本語の文です。次の文もあります。終わりですか？",
    "Arabic": "هذه جملة قصيرة. وهذه جملة أخرى! هل هذا كل شيء؟ ",
    "emoji": "👩‍👩‍👧‍👦 🇰🇷 🎉 fun! ",
    "English": "This is one sentence. Here comes another one! Is that all? ",
}
ODD = ["a", "😀", "x" * 5000, "word " * 2000, "\u200d", "A\u0301"]
LENGTHS = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584]
"""In characters; cut anywhere, also inside an emoji of several."""


def varied_texts(count: int) -> list[str]:
    """So many different texts, none of them blank: from one character to thousands of tokens."""
    scripts = [(text * 300)[:length] for text in SCRIPTS.values() for length in LENGTHS]
    reference = {str(orjson.loads(item.body)["text"]) for item in reference_items()}
    by_length = sorted(reference, key=lambda text: (len(text), text))
    special = list(dict.fromkeys([*scripts, *ODD]))
    left = count - len(special)
    step = len(by_length) / left
    return [*special, *(by_length[-1 - int(step * place)] for place in range(left))]
