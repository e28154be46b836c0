"""Every mistake in a workflow file is told with its line, and nothing is made."""

from __future__ import annotations

import pytest
from tests.unit.model.template.sources import Files

from scitq.errors import UsageError
from scitq.model.template.compile import compile_plan, load
from scitq.model.template.problems import TemplateError

STEP = "steps:\n  - name: a\n    container: alpine\n    command: echo hi\n"
TWO = "name: w\niterate: {name: sample, values: [A, B]}\nworkspace: s3://bucket/work/\n"

# The file, the line of each problem, and words of the first one.
BAD: list[tuple[str, list[int], str]] = [
    ("", [1], "the file is empty"),
    ("name: w\nsteps: [\n", [3], "no valid YAML"),
    ("name: w\n\tsteps: x\n", [2], "no valid YAML"),
    ("- a\n- b\n", [1], "group of keys"),
    ("name: w\n", [1], "needs steps"),
    ("name: w\nsteps: []\n", [2], "at least one step"),
    (STEP, [1], "a workflow needs a name"),
    (f"name: '1 w'\n{STEP}", [1], "must begin with a letter"),
    (f"name: w\nname: v\n{STEP}", [2], "given twice (first on line 1)"),
    (f"name: w\nstepz: 1\n{STEP}", [2], "did you mean steps?"),
    ("name: w\nsteps:\n  - name: a\n    container: alpine\n", [3], "the step a needs a command"),
    ("name: w\nsteps:\n  - name: a\n    command: ls\n", [3], "the step a needs a container"),
    ("name: w\nsteps:\n  - container: alpine\n    command: ls\n", [3], "a step needs a name"),
    ("name: w\nsteps:\n  - name: a\n    container: ''\n    command: ls\n", [4], "the container of the step a is empty"),
    ("name: w\nsteps:\n  - name: a\n    container: alpine\n    comand: ls\n", [3, 5], "needs a command"),
    ("name: w\nsteps:\n  - just words\n", [3], "a step is a group of keys"),
    ("name: w\nsteps:\n  - import: genomics/fastp\n", [3], "import: is not possible here"),
    (f"name: w\n{STEP}{STEP[7:]}", [6], "two steps named 'a' (the first on line 3)"),
    (f"name: w\n{STEP}    container: [x]\n", [6], "given twice"),
    (f"name: w\n{STEP}    shell: [sh]\n", [6], "shell takes a text, not a list"),
    (f"name: w\n{STEP}    language: sh\n    shell: bash\n", [7], "says the same as another key"),
    (f"name: w\n{STEP}    retry: many\n", [6], "retry must be a whole number"),
    (f"name: w\n{STEP}    retry: -1\n", [6], "from 0 to 1000"),
    (f"name: w\n{STEP}    task_spec:\n      cpus: lots\n", [7], "cpus must be a number greater than 0"),
    (f"name: w\n{STEP}    task_spec:\n      mem: 12 elephants\n", [7], "'12 elephants' is no size"),
    (f"name: w\n{STEP}    task_spec:\n      time_limit: soon\n", [7], "'soon' is no duration"),
    (f"name: w\n{STEP}    task_spec:\n      memo: 3\n", [7], "task_spec has no key 'memo'; did you mean mem?"),
    (f"name: w\n{STEP}    env:\n      A-B: 1\n", [7], "can't be the name of an environment variable"),
    (f"name: w\n{STEP}    worker_pool:\n      cpu: about 8\n", [7], "cpu is compared with a number"),
    (f"name: w\n{STEP}    worker_pool:\n      filter: cpu>>8\n", [7], "bad filter"),
    (f"name: w\n{STEP}    worker_pool:\n      max: 0\n", [7], "from 1 to"),
    (f"name: w\n{STEP}    grouped: maybe\n", [6], "grouped is true or false"),
    (f"name: w\n{STEP}    grouped: true\n    grouped_by: sample\n", [7], "can't stand beside grouped"),
    (f"name: w\n{STEP}    grouped_by: sample\n", [3], "grouped by 'sample', which the workflow does not go over"),
    # names in braces
    (f"name: w\n{STEP.replace('hi', '{params.depth}')}", [5], "there is no parameter 'depth'"),
    (f"name: w\nparams: {{deep: 3}}\n{STEP.replace('hi', '{params.dep}')}", [6], "did you mean deep?"),
    (f"name: w\n{STEP.replace('hi', '{sample}')}", [5], "{sample} is no name known here; for the text itself write {{sample}}"),
    (f"name: w\n{STEP.replace('echo hi', '|')}      echo 1\n      echo 2\n      awk '{{print}}'\n    shell: sh\n", [8], "write {{print}}"),
    (f"name: w\nvars: {{A: '{{B}}'}}\n{STEP}", [2], "{B} is no name known here"),
    (f"name: w\nvars: {{A: '{{B}}', B: '{{A}}'}}\n{STEP.replace('hi', '{A}')}", [2], "made from itself"),
    (f"name: w\nparams: {{x: {{type: string}}}}\n{STEP.replace('hi', '{params.x}')}", [6], "has no value; give one, or write a default"),
    (f"name: w\nparams: {{x: 1}}\n{STEP.replace('hi', '{params.x|shout}')}", [6], "there is no filter 'shout'"),
    (f"name: w\nparams: {{x: abc}}\n{STEP.replace('hi', '{params.x|int}')}", [6], "abc"),
    (
        f"{TWO}{STEP.replace('hi', '{sample}')}    grouped: true\n",
        [7],
        "{sample} has no single value in the step a, which is grouped; {SAMPLES}",
    ),
    # parameters
    (f"name: w\nparams:\n  x: {{type: strong}}\n{STEP}", [3], "did you mean string?"),
    (f"name: w\nparams:\n  x: {{type: int, default: two}}\n{STEP}", [3], "'two' is no whole number"),
    (f"name: w\nparams:\n  x: {{type: enum}}\n{STEP}", [3], "needs choices"),
    (f"name: w\nparams:\n  x: {{type: enum, choices: [a, b], default: c}}\n{STEP}", [3], "'c' is none of a, b"),
    (f"name: w\nparams:\n  x: {{required: true, default: c}}\n{STEP}", [3], "so a default has no use"),
    (f"name: w\nparams:\n  x-y: 3\n{STEP}", [3], "the parameter's name 'x-y'"),
    (f"name: w\nparams:\n  x: {{type: int, max: 5, default: 9}}\n{STEP}", [3], "9 is not up to 5"),
    (f"name: w\nparams:\n  x: {{type: int, min: 5, max: 2}}\n{STEP}", [3], "min is greater than max"),
    (f"name: w\nparams:\n  x: {{type: string, min: 2}}\n{STEP}", [3], "min is for numbers"),
    (f"name: w\nparams:\n  x: {{type: int, choices: [1, 2], default: 3}}\n{STEP}", [3], "'3' is none of 1, 2"),
    (f"name: w\nparams:\n  x: {{type: int, choices: [1, two]}}\n{STEP}", [3], "the choices of x: 'two' is no whole number"),
    (f"name: w\nparams:\n  x: 1:30\n{STEP}", [3], "'1:30' is no whole number"),
    (f"name: w\n{STEP}    accept_failure: perhaps\n", [6], "accept_failure is true or false, not 'perhaps'"),
    # numbers that no server would take
    (f"name: w\n{STEP}    retry: 2000\n", [6], "retry must be a whole number from 0 to 1000"),
    (f"name: w\n{STEP}    priority: 1{'0' * 40}\n", [6], "priority must be a whole number from"),
    (f"name: {'w' * 201}\n{STEP}", [1], "at most 200"),
    # items
    (
        f"name: w\niterate: {{name: sample, source: ena, accession: X}}\n{STEP}",
        [2],
        "must be one of list, range, lines, tsv, uri, not 'ena'",
    ),
    (
        f"name: w\niterate:\n  - {{name: x, values: [a, a.b]}}\n  - {{name: y, values: [b.c, c]}}\n{STEP}",
        [6],
        "two tasks would be named a.a.b.c: those of x 'a', y 'b.c' and x 'a.b', y 'c'",
    ),
    (
        f"{TWO.replace('A, B', '[a_b, c, a:b]').replace('[[', '[').replace(']]', ']')}{STEP}",
        [5],
        "w.a.a_b and w.a.a:b would both have the folder",
    ),
    (f"name: w\niterate: {{name: n, end: 1{'0' * 40}}}\n{STEP}", [2], "end must be a whole number"),
    (f"name: w\niterate: {{name: sample}}\n{STEP}", [2], "the source of items must be one of"),
    (f"name: w\niterate: {{name: sample, source: list}}\n{STEP}", [2], "need values"),
    (f"name: w\niterate: {{name: sample, values: []}}\n{STEP}", [2], "the list is empty"),
    (f"name: w\niterate: {{name: sample, values: [A, A]}}\n{STEP}", [2], "two items of sample are named 'A'"),
    (f"name: w\niterate: {{name: sample, values: [A], stop: 3}}\n{STEP}", [2], "have no key 'stop'"),
    (f"name: w\niterate: {{name: params, values: [A]}}\n{STEP}", [2], "can't be the name"),
    (f"name: w\niterate: {{name: path, values: [A]}}\n{STEP}", [2], "would replace $PATH"),
    (f"name: w\niterate: {{name: n, start: 1, end: ten}}\n{STEP}", [2], "end must be a whole number"),
    (f"name: w\niterate:\n  name: s\n  file: absent.txt\n{STEP}", [4], "absent.txt"),
    (f"name: w\niterate:\n  name: s\n  content: x\n  file: y\n{STEP}", [3], "not both"),
    (f'name: w\niterate:\n  name: s\n  source: tsv\n  content: "a\\tb\\n1\\t2"\n  key: c\n{STEP}', [3], "the table has no column 'c'"),
    (f"name: w\niterate:\n  name: s\n  uri: s3://bucket/raw/\n  pattern: '('\n{STEP}", [5], "no regular expression"),
    (f"name: w\niterate:\n  name: s\n  uri: s3://empty/raw/\n{STEP}", [3], "the list is empty"),
    (f"name: w\niterate:\n  - {{name: s, values: [A]}}\n  - {{name: S, values: [A]}}\n{STEP}", [4], "two lists are named"),
    (f"name: w\n{STEP}    each: [1, 2]\n", [6], "each takes names with lists"),
    # references
    (f"{TWO}{STEP}    inputs: qc.reports\n", [8], "'qc' is neither a step nor a URI"),
    (f"{TWO}{STEP}    inputs: a\n", [8], "can't take its own output"),
    (f"{TWO}{STEP}    depends: b\n", [8], "there is no step 'b'"),
    (f"{TWO}{STEP}    depends: {{step: a, per: sample}}\n", [8], "per: is item"),
    (f"{TWO}{STEP}    depends: {{step: a, per: item}}\n", [8], "can't wait for itself"),
    (f"{TWO}{STEP}    inputs: sample.fastqs\n", [8], "sample has no files named 'fastqs'"),
    (f"{TWO}{STEP}    inputs: 's3://bucket/x|unzip'\n", [8], "unknown action"),
    (f"{TWO}{STEP}    inputs: '/etc/passwd'\n", [8], "is no URI"),
    (f"{TWO}{STEP}    output: 's3://bucket/../x'\n", [8], ".. is not possible"),
    (f"{TWO}{STEP}    publish: true\n", [8], "needs a publish_root"),
    (f"name: w\n{STEP}    skip_if_exists: true\n", [6], "keeps none"),
    (f"name: w\n{STEP}  - {{name: b, container: alpine, command: ls, inputs: a}}\n", [6], "is kept nowhere"),
    (
        f"{TWO}{STEP}  - {{name: b, container: alpine, command: ls, inputs: a.bams}}\n",
        [8],
        "has no output 'bams'; give it one under outputs",
    ),
    (f"{TWO}{STEP}    depends: b\n  - {{name: b, container: alpine, command: ls, depends: a}}\n", [5], "in a circle"),
    # commands and conditions
    (f"name: w\n{STEP.replace('echo hi', '|')}      echo 1\n      echo 2\n", [5], "needs a shell"),
    (f"name: w\n{STEP.replace('echo hi', 'echo it’s ' + chr(39) + 'x')}", [5], "a quote is not closed"),
    (f"name: w\n{STEP}    when: params.x >\n", [6], "is not understood"),
    (f"name: w\n{STEP}    when: open('/etc/passwd')\n", [6], "functions and arithmetic are not possible"),
    (f"name: w\n{STEP}    when: params.x\n", [6], "there is no parameter 'x'"),
    (f"name: w\nparams: {{m: z}}\n{STEP}    shell: {{cond: '{{params.m}}', a: sh, b: bash}}\n", [7], "no branch for 'z'"),
    (f"name: w\nvars:\n  a: &a [*a]\n{STEP}", [3], "alias holds itself"),
    (f"name: w\nvars: {{a: !!python/object:os.system x}}\n{STEP}", [2], "is not understood here"),
]


@pytest.mark.parametrize(("text", "lines", "words"), BAD, ids=[f"{number:02}-{words[:30]}" for number, (_, _, words) in enumerate(BAD)])
def test_a_mistake_is_told_with_its_line(text: str, lines: list[int], words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_plan(load(text, "w.yaml"), {}, "w", Files({"s3://empty/raw/": [], "s3://bucket/raw/": ["s3://bucket/raw/x/1"]}), "w.yaml")
    assert [problem.line for problem in caught.value.problems] == lines, str(caught.value)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"w.yaml:{lines[0]}: ")
    assert caught.value.exit_status == 2


def test_all_mistakes_are_told_at_once() -> None:
    text = f"name: w\nfoo: 1\n{STEP.replace('hi', '{params.x}')}    bar: 2\n    retry: [1]\n"
    with pytest.raises(TemplateError) as caught:
        load(text, "w.yaml")
    assert [problem.line for problem in caught.value.problems] == [2, 7, 8]


def test_an_alias_bomb_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(TemplateError, match="more than 200000 values"):
        load(bomb, "w.yaml")


def test_wrong_parameters_are_told_together() -> None:
    template = load(f"name: w\nparams:\n  n: {{type: int, required: true}}\n  b: true\n{STEP}", "w.yaml")
    with pytest.raises(UsageError) as caught:
        compile_plan(template, {"b": "perhaps", "m": "1"}, "w", Files({}), "w.yaml")
    assert str(caught.value).splitlines() == [
        "there is no parameter 'm'",
        "the parameter n is required: --param n=INTEGER",
        "--param b: 'perhaps' is neither true nor false",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", "1__0"), ("n", "1_"), ("n", "0x10"), ("n", "9" * 5000), ("n", "٣x"), ("f", "nan"), ("f", "inf"), ("f", "-1e999"), ("c", "5")],
)
def test_a_parameter_that_writes_no_value_of_its_type_is_a_usage_error(name: str, value: str) -> None:
    text = f"name: w\nparams:\n  n: 1\n  f: 0.5\n  c: {{type: int, choices: [10, 20], default: 10}}\n{STEP}"
    with pytest.raises(UsageError, match=f"--param {name}: ") as caught:
        compile_plan(load(text, "w.yaml"), {name: value}, "w", Files({}), "w.yaml")
    assert len(str(caught.value)) < 300
    assert compile_plan(load(text, "w.yaml"), {"n": "1_0", "f": "-2e3", "c": "020"}, "w", Files({}), "w.yaml").tasks
