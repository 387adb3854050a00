"""The paper: its source is what the committed results give, well-formed, and free of numbers typed by hand."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest

from decaylab.cli import main
from paper.figures import NAMES
from paper.manuscript import DEBIAN, build, sources, typeset
from paper.manuscript_claims import finding
from paper.manuscript_original import ORIGINALS
from paper.manuscript_results import BENCHMARKS, PAPER, RESULTS, SECTIONS, Result, collect
from theory.errors import InputError

SOURCES = sources()
MAIN = (PAPER / "main.tex").read_text()
LATEX = """documentclass usepackage IfFileExists setlength emergencystretch newcommand newcolumntype raggedright
arraybackslash newsavebox sbox widebox displaystyle ifdim wd linewidth resizebox usebox else fi input title author date
begin end maketitle section subsection paragraph label ref eqref cite emph textbf textit texttt item clearpage appendix
bibliographystyle bibliography par noindent centering caption includegraphics textheight fbox hyperlink hypertarget
leavevmode hline endhead endfirsthead multicolumn footnotesize expandafter gdef csname endcsname ifcsname detokenize
allowbreak textbar textbackslash textasciitilde textasciicircum ldots url"""
MATHEMATICS = """langle rangle nabla eta lambda mu beta tau kappa epsilon sigma pi phi gamma zeta delta Sigma alpha rho
varphi Delta le ge to times cdot cdots pm approx surd infty propto sqrt frac sum int cos sin log erf lim limits mathrm
mbox operatorname qquad quad left right hat prime ne ll ell sim"""
KNOWN = {*LATEX.split(), *MATHEMATICS.split()}
NAMES_WITH_DIGITS = r"bfloat16|float32|GPT-2"


def plain(text: str) -> str:
    """Source without comments, and without escaped characters."""
    return re.sub(r"\\[\\{}$%&#_ ,;!*\[\]()'\"|^-]", " ", re.sub(r"(?m)(?<!\\)%.*$", "", text).replace(r"\\", " "))


def arguments(text: str, *names: str) -> list[str]:
    """First arguments of some macros."""
    return re.findall(r"\\(?:" + "|".join(names) + r")\{([^{}#]*)\}", text)


def problems(tex: str, bib: str) -> list[str]:
    """What is wrong with LaTeX source, as far as can be told without LaTeX."""
    # Brackets, \[ and \] included, before `plain` blanks them.
    out = [f"not ASCII: {letter!r}" for letter in sorted(set(tex + bib)) if not letter.isascii()]
    bare = re.sub(r"(?m)(?<!\\)%.*$", "", tex).replace(r"\\", " ")
    out += [r"\[ and \]"] if bare.count(r"\[") != bare.count(r"\]") else []
    text, depth = plain(tex), 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            break
    out += ["braces"] if depth else []
    out += ["dollars"] if text.count("$") % 2 else []
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{([^{}]*)\}", text):
        if kind == "begin":
            stack.append(name)
        elif not stack or stack.pop() != name:
            out.append(f"environment {name}")
    out += [f"environment {name} is not closed" for name in stack]
    for given, used in ((("label",), ("ref", "eqref")), (("hypertarget",), ("hyperlink",))):
        there, wanted = arguments(text, *given), arguments(text, *used)
        out += [f"{name} is not there" for name in sorted(set(wanted) - set(there))]
        out += [f"{name} is there twice" for name in sorted({name for name in there if there.count(name) > 1})]
    keys = re.findall(r"@\w+\{([^,]+),", bib)
    cited = {key for keys in arguments(text, "cite") for key in keys.split(",")}
    out += [f"{key} is not in the bibliography" for key in sorted(cited - set(keys))]
    out += ["a key of the bibliography is there twice"] if len(keys) != len(set(keys)) else []
    out += ["braces of the bibliography"] if bib.count("{") != bib.count("}") else []
    own = set(re.findall(r"\\newcommand\{\\(\w+)\}", text))
    out += [f"\\{name} is unknown" for name in sorted(set(re.findall(r"\\([A-Za-z]+)", text)) - own - KNOWN)]
    keys = arguments(text, "setresult")
    out += [f"result {key} is there twice" for key in sorted({key for key in keys if keys.count(key) > 1})]
    wanted = set(arguments(text, "result"))
    wanted |= {f"{name}.{kind}" for kind in ("finding", "figures") for name in arguments(text, kind)}
    wanted |= {f"{name}.state" for name in arguments(text, "borneout")}
    out += [f"result {key} does not exist" for key in sorted(wanted - set(keys))]
    for path in re.findall(r"\\includegraphics(?:\[[^\]]*\])?\{([^{}]*)\}", text):
        if f"\\IfFileExists{{{path}}}" not in text and not (PAPER / path).exists():
            out.append(f"{path} is missing")
    return out


def numbers(tex: str) -> list[str]:
    """Numbers typed by hand: any in the text, and in formulas all but small integers."""
    body = tex.partition(r"\begin{document}")[2]
    body = re.sub(r"(?m)(?<!\\)%.*$", "", body)
    named = "result|finding|figures|borneout|cite|label|ref|eqref|input|prog|law|bibliography"
    body = re.sub(rf"\\({named})\{{[^{{}}]*\}}|{NAMES_WITH_DIGITS}", "", body)
    formulas = r"\$[^$]*\$|\\\[.*?\\\]|\\begin\{equation\}.*?\\end\{equation\}"
    inside = re.findall(r"\d+\.\d+|\d{2,}", " ".join(re.findall(formulas, body, re.S)))
    return inside + re.findall(r"\d[\d.,]*", re.sub(formulas, "", body, flags=re.S))


def whole(generated: dict[str, str]) -> str:
    return MAIN + "".join(text for name, text in generated.items() if name.endswith(".tex"))


@pytest.mark.parametrize("name", SOURCES)
def test_the_committed_source_is_what_the_committed_results_give(name):
    assert (PAPER / name).read_text() == SOURCES[name], "results have changed: run decaylab paper"


def test_nothing_generated_is_left_over_or_left_out():
    generated = {f"generated/{path.name}" for path in (PAPER / "generated").iterdir()}
    assert generated == {name for name in SOURCES if name.startswith("generated/")}
    read = [f"generated/{name}" for name in re.findall(r"\\(?:input|bibliography)\{generated/(\w+)\}", MAIN)]
    assert sorted(read) == sorted(name.rpartition(".")[0] for name in generated)


def test_the_paper_is_well_formed():
    assert problems(whole(SOURCES), SOURCES["generated/references.bib"]) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (r"{\emph{a}", "braces"),
        (r"a}{b", "braces"),
        (r"$a", "dollars"),
        (r"\begin{a}\begin{b}\end{a}\end{b}", "environment a"),
        (r"\ref{a}", "a is not there"),
        (r"\label{a}\label{a}", "a is there twice"),
        (r"\cite{a}", "a is not in the bibliography"),
        (r"\nosuchmacro", r"\nosuchmacro is unknown"),
        (r"\result{a.b}", "result a.b does not exist"),
        (r"\includegraphics{nowhere.pdf}", "nowhere.pdf is missing"),
        ("λ", "not ASCII: 'λ'"),
    ],
)
def test_what_is_not_well_formed_is_noticed(broken, said):
    assert said in problems(broken, "")


def test_no_number_is_typed_by_hand():
    assert numbers(MAIN) == []
    assert numbers(r"\begin{document} an error of 2.5\,\%, $x = 0.3 + 2$, float32 \result{a.1}") == ["0.3", "2.5"]


def test_every_figure_is_in_the_text_once():
    mentioned = arguments(MAIN, "finding")
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(mentioned) == sorted(named)
    assert set(NAMES) <= {*named, *re.findall(r"\\finding\{(\w+)\}", SOURCES["generated/figures.tex"])}
    assert {name for row in ORIGINALS for name in row.ours} <= set(named)


@pytest.fixture
def results(tmp_path):
    """A copy of the results with one more figure in every state, at two scales."""
    shutil.copytree(RESULTS / "laws", tmp_path / "laws")
    entry = {
        "statement": "Decay_is 100 % useful",
        "verdict": "pass",
        "caption": "Decay_is 100 % useful Lines & dots. gain: 0.5",
        "command": "decaylab figure x --scale cpu",
        "checks": [
            {"law": "l", "claim": "gain", "measured": 0.5, "low": 0.4, "high": 0.6, "relation": ">=", "bound": 0.1}
            | {"null": 0.0, "seeds": 3, "note": "", "values": [0.4, 0.5, 0.6], "verdict": "pass"}
        ],
        "seeds": [0, 1, 2],
        "missing": [],
    }
    failed, undecided, incomplete = (copy.deepcopy(entry) for _ in range(3))
    failed["checks"][0] |= {"measured": 0.05123, "verdict": "fail", "note": "worst of a_b"}
    undecided["checks"][0] |= {"seeds": 1, "low": None, "high": None, "verdict": "undecided"}
    incomplete["missing"] = ["run-1"]
    by_scale = {
        "cpu": {"lm_decay_curves": entry, "twin": failed, "sphere": undecided, "rounding": incomplete},
        "gpu": {"lm_decay_curves": failed, "brand_new": entry},
    }
    for scale, figures in by_scale.items():
        (tmp_path / scale).mkdir()
        (tmp_path / scale / "checks.json").write_text(json.dumps({"scale": scale, "figures": figures}))
    return tmp_path


def test_every_verdict_is_shown_as_it_is(results):
    generated = sources(results)
    assert problems(whole(generated), generated["generated/references.bib"]) == []
    macros = dict(re.findall(r"\\setresult\{([^{}]*)\}\{(.*)\}\n", generated["generated/macros.tex"]))
    assert "This holds at scale cpu (1 of 1 check holds)" in macros["lm_decay_curves.finding"].replace(
        "checks", "check"
    )
    assert r"\textbf{does not hold as stated} at scale gpu" in macros["lm_decay_curves.finding"]
    assert "failed: " in macros["twin.finding"]
    assert r"\textbf{undecided}" in macros["sphere.finding"]
    assert r"no claim" in macros["rounding.finding"]
    assert "1 run is missing" in macros["rounding.finding"]
    assert macros["cpu/twin.1.value"] == "$0.0512$"
    assert macros["cpu/twin.1.verdict"] == r"\textbf{fails}"
    assert macros["twin.state"] == r"\textbf{fails} at scale cpu"
    assert macros["vgg_curves.state"] == "not run"
    assert macros["scales.summary"].startswith("At scale cpu 4 figures have been made, with 4 checks")
    figures = generated["generated/figures.tex"]
    assert figures.count(r"\begin{figure}") == 6
    assert "Lines \\& dots." in figures
    assert r"\setresult{more.figures}{\figures{brand_new}}" in figures
    readme = generated["README.md"]
    assert "`lm_decay_curves`: cpu: holds, 1 of 1 checks / gpu: **fails**, 0 of 1 checks; fails: gain" in readme
    assert "`lm_constant_lr`: not run" in readme


def test_a_figure_that_was_not_run_makes_no_claim():
    assert finding("sphere", []) == r"(\texttt{sphere}: not run at this scale.)"
    for name in {name for names in SECTIONS.values() for name in names} - {result.name for result in collect()}:
        assert rf"\setresult{{{name}.figures}}{{}}" in SOURCES["generated/figures.tex"]


def test_a_changed_result_changes_the_source(results):
    before = sources(results)["generated/macros.tex"]
    path = results / "cpu" / "checks.json"
    path.write_text(path.read_text().replace("0.05123", "0.05223"))
    after = sources(results)["generated/macros.tex"]
    assert before != after
    assert before == after.replace("0.0522", "0.0512")


def test_what_is_drawn_is_taken_from_the_caption():
    for result in collect():
        assert result.drawn in result.entry["caption"]
        assert result.drawn
        assert not any(check["claim"] in result.drawn for check in result.checks)
    assert Result("x", "cpu", {"statement": "S.", "caption": "S. D. Scale cpu. c", "checks": []}).drawn == "D."


def test_without_latex_one_sentence_names_the_packages(tmp_path):
    pdf, note = typeset(tmp_path, environment={"PATH": ""})
    assert pdf is None
    assert note.count(".") == 1
    assert all(package in note for package in DEBIAN)


def test_latex_is_run_where_it_is_and_its_first_error_is_told(tmp_path):
    tools, out = tmp_path / "bin", tmp_path / "out"
    tools.mkdir()
    shutil.copytree(PAPER / "generated", out / "generated")
    # Stands for latexmk: the sources must be beside it, the drawings on TeX's path.
    script = '#!/bin/sh\ntest -f generated/claims.tex || exit 3\necho "$TEXINPUTS $SOURCE_DATE_EPOCH" > main.pdf\n'
    for name in ("latexmk", "pdflatex"):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    pdf, note = typeset(out, RESULTS, {"PATH": f"{tools}:/bin:/usr/bin"})
    assert note == ""
    assert pdf is not None
    assert pdf == out / "main.pdf"
    assert pdf.read_text() == f".:{RESULTS.parent}: 0\n"
    (tools / "latexmk").write_text("#!/bin/sh\necho preamble\necho '! Undefined control sequence.'\nexit 12\n")
    with pytest.raises(InputError, match=r"latexmk failed on main.tex: ! Undefined control sequence\."):
        typeset(out, RESULTS, {"PATH": f"{tools}:/bin:/usr/bin"})


def test_the_command_writes_everything_and_says_what_changed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as stop:
        main(["paper", "--out", str(tmp_path), "--json"])
    assert stop.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert {Path(name).relative_to(tmp_path).as_posix() for name in told["changed"]} == set(SOURCES)
    assert told["pdf"] is None
    assert "texlive-latex-base" in told["note"]
    assert build(tmp_path).changed == ()
    for name, text in SOURCES.items():
        assert (tmp_path / name).read_text() == text


def test_missing_measurements_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"validate.json is missing"):
        sources(RESULTS, tmp_path)
    assert (BENCHMARKS / "validate.json").exists()
