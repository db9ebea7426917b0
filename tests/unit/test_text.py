"""Chinese and English text: cleaning, language, words, parts of speech, sentiment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.text import detect_language, key_terms, lexical_terms, normalise, segment, sentiment, tag, words

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a \t b\n\nc\u3000d ", "a b c d"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ １２３", "Full width 123"),
        ("<p>Soft <b>towel</b></p><br/>100&nbsp;% cotton", "Soft towel 100 % cotton"),
        ("&lt;b&gt;bold&lt;/b&gt; &amp; &quot;plain&quot;", 'bold & "plain"'),
        ("a<script>alert('x')</script>b<style>p {}</style>c<!-- d -->e", "a b c e"),
        ("5 < 6 mm and 7 > 3", "5 < 6 mm and 7 > 3"),
        ("zero\u200bwidth\ufeff \x00nul\x07 \ud800lone \ufffdbad", "zerowidth nul lone bad"),
        ("Lego™ Duplo®", "Lego Duplo"),
        ("cafe\u0301", "café"),
        ("", ""),
    ],
)
def test_normalise(raw, clean):
    assert normalise(raw) == clean


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("<>&;/abамп狗\ud800\u200b #12'"))))
@settings(deadline=None)
def test_nothing_in_a_text_breaks_the_functions(text):
    clean = normalise(text)
    clean.encode()
    assert normalise(clean) == clean
    assert not re.search(r"[\x00-\x1f\u200b\ufeff]|\s\s", clean)
    assert all(re.fullmatch(r"[^\W_]+", term) and term == term.lower() for term in lexical_terms(text))
    assert len(key_terms(text)) <= 8
    assert [word for word, _ in tag(text, "en")] == segment(text, "en")


def test_a_megabyte_of_open_tags_takes_no_long_time():
    assert len(normalise("<script>" * 12_000)) == 0
    assert normalise("<" * 100_000)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("天然成犬狗粮 10kg", "zh"),
        ("Apple iPhone 13 手机壳 透明", "zh"),
        ("Stainless steel bottle, 500 ml", "en"),
        ("Stainless steel bottle with lid, matches our 茶 set", "en"),
        ("これは猫の食べ物です", "und"),
        ("강아지 사료 10kg", "und"),
        ("корм для собак", "und"),
        ("12345 --- 6", "und"),
        ("", "und"),
    ],
)
def test_detect_language(text, language):
    assert detect_language(text) == language


def test_segment():
    assert segment("超薄防摔手机，送保护套！", "zh")[-3:] == ["手机", "送", "保护套"]
    assert segment("Don't miss the 2-pack!", "en") == ["Don't", "miss", "the", "2", "pack"]


def test_words_drop_stop_words_but_keep_negations_and_goods():
    assert words("This is not the best case for a home computer") == ["not", "case", "home", "computer"]
    assert words("这个手机的质量不好") == ["手机", "质量", "不好"]


def test_lexical_terms_follow_the_rule_of_sql():
    assert lexical_terms("Dog-Food 10kg, Chappi's") == ["dog", "food", "10kg", "chappi", "s"]
    assert lexical_terms("狗粮A2罐") == ["狗", "狗粮", "粮", "a2", "罐"]
    assert lexical_terms("猫の食") == ["猫", "の", "食"]
    assert lexical_terms("保护套") == ["保", "保护", "保护套", "护", "护套", "套"]


def test_tag():
    assert dict(tag("A heavy staple sticks firmly to 3 walls", "en")) == {
        "A": "X",
        "heavy": "ADJ",
        "staple": "NOUN",
        "sticks": "NOUN",
        "firmly": "ADV",
        "to": "X",
        "3": "NUM",
        "walls": "NOUN",
    }
    chinese = dict(tag("北京的漂亮手机很便宜", "zh"))
    assert (chinese["北京"], chinese["漂亮"], chinese["手机"], chinese["便宜"]) == ("PROPN", "ADJ", "NOUN", "ADJ")
    assert tag("корм 5", "und") == [("корм", "X"), ("5", "X")]


def test_key_terms_are_frequent_nouns_and_adjectives():
    assert key_terms("The red bottle. A bottle that is really very heavy, bottle of steel")[0] == "bottle"
    assert set(key_terms("不锈钢保温杯，保温杯容量很大")) >= {"不锈钢", "容量"}
    assert key_terms("") == []


@pytest.mark.parametrize(
    ("text", "language", "sign"),
    [
        ("I love it, works perfectly", "en", 1),
        ("Terrible, it broke after a day", "en", -1),
        ("This is not good", "en", -1),
        ("质量很好，非常喜欢", "zh", 1),
        ("太差了，不值这个价，退货", "zh", -1),
        ("", "zh", 0),
        ("ужасно", "und", 0),
    ],
)
def test_sentiment(text, language, sign):
    mood = sentiment(text, language)
    assert -1 <= mood <= 1
    assert (mood > 0) - (mood < 0) == sign


@pytest.mark.slow
def test_chinese_reviews_are_judged_right_most_of_the_time(data):
    """On 600 labelled shop reviews; the majority class alone has one half."""
    import csv
    import io
    import random
    import zipfile

    with zipfile.ZipFile(next((data / "zh-reviews").glob("*.zip"))) as archive:
        lines = io.TextIOWrapper(archive.open(archive.namelist()[0]), "utf-8-sig")
        reviews = [(row["review"], int(row["label"])) for row in csv.DictReader(lines) if row["review"]]
    sample = random.Random(1).sample(reviews, 600)
    right = sum((sentiment(review, "zh") > 0) == bool(label) for review, label in sample)
    assert right / len(sample) > 0.78


def test_dictionaries_load_once_quietly_and_leave_no_file(tmp_path):
    code = (
        "import threading\n"
        "from ml.text import key_terms\n"
        "threads = [threading.Thread(target=key_terms, args=(text,)) for text in ['不锈钢保温杯', 'steel cup'] * 4]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
        "print(key_terms('不锈钢保温杯'), key_terms('a steel cup'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=REPOSITORY,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "NLTK_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("[") == 2
    assert "steel" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
