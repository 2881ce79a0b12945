"""What is a secret and what is not, and that nothing but the secret goes."""

import os
import subprocess
import sys

import pytest

from irlens.base import secrets
from irlens.base.errors import UserError
from irlens.base.options import parse_json
from irlens.base.workers import Workers

VALUE = "Zq7-canary-Zq7"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(secrets, "_learned", {})


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{VALUE}@host:8000/v1",
        f"http://{VALUE}@host/v1",
        f"http://user:p@ss/{VALUE}@host/v1",
        f"see http://host/v1?model=a&api_key={VALUE} there",
        f"https://host/v1?code={VALUE}",
        f'{{"api_key": "{VALUE}"}}',
        f'{{"a": [{{"headers": {{"Authorization": "Bearer {VALUE}"}}}}]}}',
        f"{{'hf_token': '{VALUE}', 'n': 1}}",
        f'"{{\\"secret\\": \\"{VALUE}\\"}}"',
        f'{{"api_keys": ["{VALUE}", "b"]}}',
        f"--api-key={VALUE}",
        f"hf_token={VALUE}",
        f"Authorization: Bearer {VALUE}",
        f"x-api-key: {VALUE}",
        f"password: {VALUE}",
        f"Illegal header value b'Bearer {VALUE}'",
    ],
)
def test_a_secret_is_left_out_by_where_it_stands(text):
    assert VALUE not in secrets.redact(text) and secrets.MARK in secrets.redact(text)
    assert secrets.redact(secrets.redact(text)) == secrets.redact(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"max_tokens": 96, "eos_token": "</s>", "pad_token": "<pad>", "nll_per_token": true}',
        '{"api_key_env": "OPENAI_API_KEY", "tokenizer": "a", "api_key": null}',
        "http://127.0.0.1:8000/v1,http://host/v1",
        "q1: prompt of 5 tokens + 96 new ones exceeds the model's 64 positions",
        "--columns prompt=instruction,answer=output",
        "query_id=q, doc_id=d occurs more than once; the token: is missing",
        "write a@b.c, or see https://huggingface.co/owner/name/tree/main",
        "regex:#### (\\d+)",
    ],
)
def test_what_is_no_secret_stays(text):
    assert secrets.redact(text) == text


@pytest.mark.parametrize("form", [VALUE, "WnE3LWNhbmFyeS1acTc=", "key%20of%20Zq7", "key of Zq7"])
def test_the_value_of_a_variable_is_left_out_wherever_it_turns_up_and_however_it_is_written(monkeypatch, form):
    monkeypatch.setenv("SOME_API_KEY", VALUE)
    monkeypatch.setenv("DB_PASSWORD", "key of Zq7")
    assert form not in secrets.redact(f"you said <{form}>, and I do not know it")
    monkeypatch.delenv("SOME_API_KEY")
    monkeypatch.delenv("DB_PASSWORD")
    assert form in secrets.redact(f"you said <{form}>, and I do not know it")


def test_what_a_result_is_does_not_depend_on_its_secrets():
    def settings(password, key):
        return {
            "url": f"http://u:{password}@h/v1",
            "args": {"top_k": 1, "api_key": key},
            "text": f'{{"hf_token": "{key}"}}',
        }

    assert secrets.without(settings("one-password", "a")) == secrets.without(settings("another-one", "b"))
    assert secrets.without(settings("p", "a"))["args"] == {"top_k": 1}
    assert secrets.redacted(settings("p", "a"))["args"] == {"top_k": 1, "api_key": "***"}


def test_a_users_mistake_never_says_a_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", VALUE)
    assert VALUE not in str(UserError(f"refused: {VALUE}")) + repr(UserError(f"http://a:{VALUE}@b"))
    with pytest.raises(UserError, match="holds a secret") as error:
        parse_json('{"hub_token": "abc-Zq7"}', "--trainer-args")
    assert "Zq7" not in str(error.value)


class Failing:
    """What a worker holds; every call fails, with the words of a library."""

    def fail(self, words):
        print(words, flush=True)
        raise RuntimeError(f"cannot log in with {words}")


def test_a_worker_that_fails_says_no_secret_and_has_none_in_its_log(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", VALUE)
    workers = Workers(Failing, [dict(os.environ)])
    try:
        with pytest.raises(UserError, match="cannot log in") as error:
            workers.call("fail", VALUE)
        workers.all[0].log.seek(0)
        logs = workers.all[0].log.read().decode()
        command = workers.all[0].process.args
    finally:
        workers.close()
    assert "cannot log in with ***" in logs and VALUE not in logs + str(error.value) + str(command)


def test_the_trace_of_a_fault_has_none(monkeypatch, tmp_path):
    code = (
        "import sys; from irlens.cli import app; from irlens.base import secrets\n"
        "def fault(*_): raise RuntimeError('no entry for http://me:Zq7-canary-Zq7@host, ' + '-'.join(['Env', 'Zq7']))\n"
        "from irlens.cli import report; report.doctor = fault; sys.argv = ['irlens', 'doctor']; app.main()"
    )
    environment = os.environ | {"WANDB_API_KEY": "Env-Zq7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "RuntimeError: no entry for http://***@host, ***" in done.stderr
    assert "Env-Zq7" not in done.stderr
