import os
import stat
from pathlib import Path

import pytest

from skybatch.engine import pools
from skybatch.engine.environment import resolve
from skybatch.engine.strict_yaml import load
from skybatch.errors import UnknownName, UsageError

FULL = """\
executor: local
workers: 2
env: {HF_HOME: /data/hf, HF_TOKEN: "${ENV:HF_TOKEN}", OMP_NUM_THREADS: 4}
activate_env: source .venv/bin/activate
setup: uv pip install vllm
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("SKYBATCH_HOME", str(home))
    return home


def written(folder: Path, text: str) -> Path:
    path = folder / "pool.yaml"
    path.write_text(text)
    return path


def test_an_applied_pool_is_there_with_everything_the_file_says(tmp_path: Path) -> None:
    pools.apply(written(tmp_path, FULL), "box-1")
    pool = pools.get("box-1")
    assert (pool.executor, pool.workers, pool.setup) == ("local", 2, "uv pip install vllm")
    assert pool.activate_env == "source .venv/bin/activate"
    assert pool.env == {"HF_HOME": "/data/hf", "HF_TOKEN": "${ENV:HF_TOKEN}", "OMP_NUM_THREADS": "4"}
    assert pools.names() == ["box-1", "local"]
    assert pools.from_mapping(pool.to_mapping(), "box-1") == pool


def test_the_kept_file_is_the_owners_alone_and_holds_references_only(tmp_path: Path, own_home: Path) -> None:
    pools.apply(written(tmp_path, FULL), "box")
    kept = own_home / "pools" / "box.yaml"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert "${ENV:HF_TOKEN}" in kept.read_text()
    assert os.listdir(kept.parent) == ["box.yaml"]


def test_references_are_looked_up_only_when_asked(tmp_path: Path) -> None:
    pool = pools.apply(written(tmp_path, FULL), "box")
    assert resolve(pool.env, {"HF_TOKEN": "hf_1"})["HF_TOKEN"] == "hf_1"
    with pytest.raises(UsageError, match="variable HF_TOKEN, which the pool refers to, is not set"):
        resolve(pool.env, {})


def test_the_references_form_is_read(tmp_path: Path) -> None:
    text = "pool:\n  workers: 3\nresources:\n  cpus: 4+\n  cloud: aws\nsetup: |\n  pip install x\n"
    pool = pools.apply(written(tmp_path, text), "box")
    assert (pool.executor, pool.workers, pool.setup) == ("local", 3, "pip install x\n")
    assert pool.ignored == ("resources.cpus", "resources.cloud")


def test_accelerators_reach_an_executor_that_hands_out_devices(tmp_path: Path) -> None:
    text = "executor: gpu\nresources: {accelerators: 'L4:1'}\n"
    assert pools.parse_pool(load(written(tmp_path, text)), "box").options == {"accelerators": "L4:1"}


def test_the_form_of_sky_batch_that_asks_for_accelerators_means_those_of_this_machine(tmp_path: Path) -> None:
    pool = pools.parse_pool(load(written(tmp_path, "resources: {accelerators: 'L4:1'}\n")), "box")
    assert (pool.executor, pool.options) == ("gpu", {"accelerators": "L4:1"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker: 2\n", r"pool.yaml:1: unknown key 'worker' in a pool of the executor local; did you mean 'workers'\?"),
        ("workers: 2\nworkers: 3\n", "pool.yaml:2: 'workers' is given twice, first in line 1"),
        ("workers: 0\n", "pool.yaml:1: workers must be a whole number of at least 1, not 0"),
        ("workers: true\n", "workers must be a whole number"),
        ("executor: local\npool: {workers: 2}\nworkers: 1\n", "pool.yaml:3: workers is given twice"),
        ("executor: local\nresources:\n  accelerators: L4:1\n", "pool.yaml:3: resources.accelerators: the local"),
        ("resources:\n  accelerators: Z9:1\n", "pool.yaml:2: accelerators: 1 Z9 for each worker is asked for"),
        ("executor: ssh\nhosts: [a, b]\nhots: [c]\n", r"pool.yaml:3: unknown key 'hots'.*did you mean 'hosts'\?"),
        ("executor: ssh\nhosts: ['a;id']\n", "pool.yaml:2: hosts: 'a;id' is not the name of a host"),
        ("resources: {acelerators: 1}\n", "did you mean 'accelerators'"),
        ("env: {A: true}\n", "write the value of A as a string"),
        ("env: {'A=B': x}\n", "'A=B' is not a name"),
        ("env: {HF_TOKEN: hf_abc}\n", r"looks like a credential.*write \$\{ENV:HF_TOKEN\}"),
        ("executor: !!python/object/apply:os.system [id]\n", "tags such as .* are not allowed"),
        ("a: &a [1]\nb: [*a, *a]\n", "anchors and aliases are not allowed"),
        ("setup: [1]\n", "setup must be a string"),
        ("- 1\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("a: [\n", "pool.yaml:2:"),
        ("setup: \x00\n", "pool.yaml"),
        ("[" * 100_000, "nested too deeply"),
        ("true: 1\n", "keys must be strings"),
        ("a: " + "1" * 5000 + "\n", "pool.yaml"),
        ("#" * (1 << 20) + "##\n", "larger than"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_place(
    tmp_path: Path, own_home: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        pools.apply(written(tmp_path, text), "box")
    assert "hf_abc" not in str(caught.value)
    assert not (own_home / "pools").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "x" * 101, "é", "local", "a\n"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, own_home: Path, name: str) -> None:
    with pytest.raises(UsageError):
        pools.apply(written(tmp_path, FULL), name)
    assert not (own_home / "pools").exists()


def test_a_deleted_pool_is_gone_and_local_stays(tmp_path: Path) -> None:
    pools.apply(written(tmp_path, FULL), "box")
    pools.delete("box")
    assert pools.names() == ["local"]
    for missing in ("box", "../box", "lokal"):
        with pytest.raises(UnknownName, match="known: local"):
            pools.get(missing)
        with pytest.raises(UnknownName, match="known: local"):
            pools.delete(missing)
    with pytest.raises(UsageError, match="built in"):
        pools.delete("local")
    assert pools.get("local").executor == "local"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_ACCESS_KEY_ID", "aws_secret_access_key", "DB_PASSWORD", "OPENAI_API_KEY"]
)
def test_usual_names_of_credentials_are_recognised(name: str) -> None:
    assert pools.looks_secret(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "HF_HOME", "KEYBOARD", "MONKEY"])
def test_other_names_are_not(name: str) -> None:
    assert not pools.looks_secret(name)
