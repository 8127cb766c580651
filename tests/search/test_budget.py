"""The budget command: exit codes, JSON keys, limits, files and run folders, and what it loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import search.budget
from mobileface.errors import CheckFailed, InputError
from mobileface.models.network import Network
from mobileface.zoo import ZOO
from search.budget import BUDGETS, Budget, find_budget, judge, main, per_stage, require_fits
from search.cost import cost
from tests.search.budgets import OURS, PROMISED, Capture, answer, complaint
from tests.strategies import ODD

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)


# -- the JSON object


def test_without_a_budget_nothing_is_judged(capsys: Capture) -> None:
    found = answer(capsys, "lfrc-step5")
    assert set(found) == PROMISED | OURS
    assert found["fits"] is None
    assert found["budget"] is None
    assert found["over"] == {}
    spent = cost(ZOO["lfrc-step5"])
    assert (found["arch"], found["rule"], found["embedding_dim"]) == ("lfrc-step5", "lfrc", 282)
    assert (found["macs"], found["flops_lfrc"]) == (spent.macs, spent.flops_lfrc)
    assert (found["params"], found["size_mib"]) == (spent.params, spent.size_mib)
    assert found["bytes"] == spent.bytes_by_precision


@pytest.mark.parametrize("name", ["lfrc-light", "lfrc-large"])
def test_the_papers_network_fits_the_challenges_budgets(capsys: Capture, name: str) -> None:
    found = answer(capsys, "lfrc-step5", "--budget", name)
    assert set(found) == PROMISED | OURS
    assert (found["fits"], found["over"]) == (True, {})
    assert found["budget"]["name"] == name


def test_the_challenges_budgets_say_what_they_limit() -> None:
    light, large = BUDGETS["lfrc-light"], BUDGETS["lfrc-large"]
    assert (light.rule, light.max_flops, light.max_size_mib, light.max_dim) == ("lfrc", 1e9, 20, 512)
    assert (large.rule, large.max_flops, large.max_size_mib, large.max_dim) == ("lfrc", 30e9, None, 512)


def test_over_budget_is_exit_code_1_with_used_over_allowed(capsys: Capture) -> None:
    limits = ("--max-flops", "5e8", "--max-size-mib", "10", "--max-dim", "256")
    found = answer(capsys, "lfrc-step5", *limits, code=1)
    spent = cost(ZOO["lfrc-step5"])
    assert found["fits"] is False
    wanted = {"flops": spent.flops_lfrc / 5e8, "size_mib": spent.size_mib / 10, "dim": 282 / 256}
    assert found["over"] == pytest.approx(wanted)
    given = {"name": "custom", "rule": "lfrc", "max_flops": 5e8, "max_size_mib": 10.0, "max_dim": 256}
    assert found["budget"] == {**given, "max_ms": None, "latency": None}


def test_only_what_is_passed_is_over(capsys: Capture) -> None:
    found = answer(capsys, "lfrc-step1", "--budget", "lfrc-light", code=1)
    assert found["over"] == {"flops": pytest.approx(1.0773, abs=1e-4)}


def test_a_limit_that_is_reached_is_not_passed(capsys: Capture) -> None:
    spent = cost(ZOO["micro"])
    assert answer(capsys, "micro", "--max-flops", str(spent.flops_lfrc), "--max-dim", "32")["fits"] is True
    assert answer(capsys, "micro", "--max-flops", str(spent.flops_lfrc - 1), code=1)["fits"] is False


def test_max_flops_counts_by_the_rule(capsys: Capture) -> None:
    between = str(700e6)  # 490 MMACs, 976 MFLOPs
    assert answer(capsys, "lfrc-step5", "--max-flops", between, "--rule", "macs")["fits"] is True
    assert answer(capsys, "lfrc-step5", "--max-flops", between, "--rule", "lfrc", code=1)["fits"] is False
    assert answer(capsys, "lfrc-step5", "--rule", "macs")["rule"] == "macs"


@pytest.mark.parametrize("name", ["micro", "lfrc-step5"])
def test_rows_of_per_layer_sum_up_to_the_totals(capsys: Capture, name: str) -> None:
    found = answer(capsys, name, "--per-layer")
    assert set(found) == PROMISED | OURS | {"per_stage"}
    rows = found["per_stage"]
    assert rows == per_stage(ZOO[name])
    for key in ("macs", "flops_lfrc", "params"):
        assert sum(row[key] for row in rows) == found[key]
    assert sum(row["bytes"] for row in rows) == found["size_mib"] * 2**20
    assert [row["stage"] for row in rows][:2] == ["stem", "stages.0"]


def test_what_a_head_adds_to_its_plain_trunk(capsys: Capture) -> None:
    found = answer(capsys, "lgaf-r100", "--per-layer")
    assert set(found) == PROMISED | OURS | {"extra", "per_stage"}
    spent, plain = cost(ZOO["lgaf-r100"]), cost(ZOO["iresnet100"])
    assert found["extra"] == {
        "macs": spent.macs - plain.macs,
        "flops_lfrc": spent.flops_lfrc - plain.flops_lfrc,
        "params": spent.params - plain.params,
    }
    rows = {row["stage"]: row for row in found["per_stage"]}
    assert list(rows)[-3:] == ["mhms", "gfe", "lgf"]
    assert rows["mhms"]["flops_lfrc"] + rows["lgf"]["flops_lfrc"] == found["extra"]["flops_lfrc"]
    assert main(["lgaf-r100", "--per-layer"]) == 0
    text = capsys.readouterr().out
    assert "+567.7 MFLOPs, +283.9 MMACs, +15.311 M parameters over its plain trunk" in text
    assert "  mhms " in text


def test_verify_builds_the_network_and_counts(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(capsys, "micro", "--verify")
    assert set(found) == PROMISED | OURS | {"fvcore_macs"}
    assert found["fvcore_macs"] == found["macs"]
    assert main(["micro", "--verify"]) == 0
    assert "verified: fvcore counts the same" in capsys.readouterr().out
    monkeypatch.setattr("search.count_built.fvcore_macs", lambda arch: 1)
    text = complaint(capsys, "micro", "--verify", code=1)
    assert f"fvcore counts 1 MACs on the built network, the walk {found['macs']}" in text


def test_verify_refuses_what_would_fill_the_memory(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "__init__", lambda *_: pytest.fail("built"))
    file = tmp_path / "huge.json"
    file.write_text(json.dumps({"family": "iresnet", "depths": [512] * 4, "widths": [8192] * 4}))
    text = complaint(capsys, str(file), "--verify")
    assert re.search(r"--verify: huge takes 9,\d{3},\d{3} MiB to build, wanted 4,096 or less", text)
    assert answer(capsys, str(file))["fits"] is None


def test_verify_without_fvcore_says_what_to_install(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    assert "pip install 'mobileface[search]'" in complaint(capsys, "micro", "--verify")


# -- where an architecture comes from


@pytest.mark.parametrize("kind", ["json", "yaml", "folder"])
def test_files_and_run_folders(capsys: Capture, tmp_path: Path, kind: str) -> None:
    file = tmp_path / ("mine.yaml" if kind == "yaml" else "arch.json")  # JSON is YAML as well
    file.write_text(json.dumps(ODD.to_dict()))
    found = answer(capsys, str(tmp_path if kind == "folder" else file))
    assert found == json.loads(json.dumps(judge(ODD, None)))


# -- text


def test_text_names_work_size_and_width(capsys: Capture) -> None:
    assert main(["lfrc-step5", "--budget", "lfrc-light", "--per-layer"]) == 0
    text = capsys.readouterr().out
    for part in ("976.6 MFLOPs (lfrc rule)", "490.2 MMACs", "19.86 MiB", "282-d", "budget lfrc-light: fits"):
        assert part in text
    assert all(row["stage"] in text for row in per_stage(ZOO["lfrc-step5"]))


def test_text_says_what_is_over(capsys: Capture) -> None:
    assert main(["lfrc-step5", "--max-flops", "1e8", "--max-size-mib", "1", "--max-dim", "64"]) == 1
    text = capsys.readouterr().out
    assert "OVER: 976.6 M FLOPs (lfrc rule), allowed 100.0 M (9.77 times)" in text
    assert "19.86 MiB, allowed 1.0 MiB (19.86 times)" in text
    assert "282-d, allowed 64-d (4.41 times)" in text
    assert main(["lfrc-step5", "--max-flops", "1e8", "--rule", "macs"]) == 1
    assert "OVER: 490.2 M MACs, allowed 100.0 M (4.90 times)" in capsys.readouterr().out


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["lfrc-step55"], "no architecture is called 'lfrc-step55' (did you mean 'lfrc-step5'?)"),
        (["none.yaml"], "none.yaml: no architecture there"),
        (["a" * 5000], "File name too long"),
        (["micro", "--budget", "lfrc-lite"], "no budget is called 'lfrc-lite' (did you mean 'lfrc-light'?)"),
        (["micro", "--rule", "flops"], "rule 'flops' is not known; known: lfrc, macs"),
        (["micro", "--max-flops", "-1"], "max_flops is -1.0, wanted a number above 0"),
        (["micro", "--max-flops", "nan"], "max_flops is nan, wanted a number above 0"),
        (["micro", "--max-size-mib", "inf"], "max_size_mib is inf, wanted a number above 0"),
        (["micro", "--max-dim", "0"], "max_dim is 0, wanted a number above 0"),
        (["micro", "--max-ms", "0", "--latency", "onnx-fp32"], "max_ms is 0.0, wanted a number above 0"),
        (["micro", "--max-ms", "5"], "max_ms is 5.0 and latency is missing, wanted both or neither"),
        (["micro", "--latency", "onnx-fp23"], "no latency table is called 'onnx-fp23' (did you mean 'onnx-fp32'?)"),
        (["micro", "--latency", "none.json"], "none.json: no such file; wanted a latency table"),
        (["micro", "--budget", "lfrc-light", "--max-dim", "64"], "--budget and --max-… are both given"),
        (["micro", "--budget", "lfrc-light", "--rule", "macs"], "which counts by lfrc; leave --rule out"),
    ],
    ids=lambda value: value[0][:12] if isinstance(value, list) else value[:20],
)
def test_bad_input_is_exit_code_2_and_one_line(capsys: Capture, arguments: list[str], text: str) -> None:
    assert text in complaint(capsys, *arguments)


def test_a_hostile_file_ends_in_one_line(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps({**ODD.to_dict(), "name": "a\x1b[31m\nb"}))
    text = complaint(capsys, str(file))
    assert "wanted 1 to 100 printable characters" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("arguments", [[], ["micro", "--no-such"], ["micro", "tiny"], ["micro", "--max-dim", "x"]])
def test_usage_errors_are_exit_code_2(capsys: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"max_flop": 1}, "budget: unknown key 'max_flop' (did you mean 'max_flops'?)"),
        ({"max_flops": "1e9"}, "max_flops is '1e9', wanted a number above 0"),
        ({"rule": "gflops"}, "rule 'gflops' is not known"),
        ({"latency": "onnx-fp32"}, "latency is 'onnx-fp32' and max_ms is missing, wanted both or neither"),
    ],
)
def test_a_plans_budget_table_is_checked(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        find_budget(keys)
    assert text in str(caught.value)


def test_require_fits_refuses_with_the_numbers() -> None:
    assert require_fits(ZOO["lfrc-step5"], BUDGETS["lfrc-light"])["fits"] is True
    with pytest.raises(CheckFailed, match=r"lfrc-step1 is over budget lfrc-light: 1077\.3 M FLOPs") as caught:
        require_fits(ZOO["lfrc-step1"], BUDGETS["lfrc-light"])
    assert caught.value.exit_code == 1
    assert find_budget({"max_dim": 64}) == Budget(max_dim=64)
    assert not Budget().limited()


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (BUDGETS["lfrc-light"], "lfrc-light (1000 MFLOPs, 20 MiB, 512 dimensions)"),
        (Budget(max_flops=4e7), "40 MFLOPs"),
        (Budget(rule="macs", max_flops=1.5e6, max_ms=0.25, latency="onnx-fp32"), "1.5 MMACs, 0.25 ms (onnx-fp32)"),
        (Budget(), "anything"),
    ],
)
def test_a_budget_in_words(budget: Budget, words: str) -> None:
    assert budget.in_words() == words


# -- as a process


def test_exit_codes_of_the_process(tmp_path: Path) -> None:
    done = python("-m", "search.budget", "lfrc-step5", "--budget", "lfrc-light", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["fits"] is True
    over = python("-m", "search.budget", "lfrc-step1", "--budget", "lfrc-light")
    assert (over.returncode, over.stderr) == (1, "")
    bad = python("-m", "search.budget", "no-such")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: no architecture is called 'no-such'")


def test_a_budget_is_checked_without_torch_and_numpy(tmp_path: Path, table: str) -> None:
    """Whatever way the architecture comes: by name, from YAML, from a run folder; milliseconds too."""
    (tmp_path / "arch.json").write_text(json.dumps(ODD.to_dict()))
    (tmp_path / "arch.yaml").write_text(json.dumps(ODD.to_dict()))
    script = (
        "import sys; from search.budget import main\n"
        "for arch in sys.argv[2:]:\n"
        "    assert main([arch, '--budget', 'lfrc-light', '--per-layer', '--latency', sys.argv[1], '--json']) == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = python("-c", script, table, "lfrc-step5", str(tmp_path), str(tmp_path / "arch.yaml"))
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    assert {"mobileface", "search", "yaml"} <= loaded
    assert not loaded & {"torch", "numpy", "cv2", "fvcore", "onnx", "matplotlib", "safetensors"}


def test_help_names_every_option() -> None:
    done = python("-m", "search.budget", "--help")
    assert done.returncode == 0
    for option in (
        "--budget",
        "--max-flops",
        "--rule",
        "--max-size-mib",
        "--max-dim",
        "--max-ms",
        "--latency",
        "--per-layer",
        "--json",
        "--verify",
    ):
        assert option in done.stdout
    assert all(name in done.stdout for name in search.budget.BUDGETS)
