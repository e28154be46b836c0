"""What workflow files come to."""

from __future__ import annotations

import pytest
from tests.unit.model.template.sources import Files

from scitq.model.template.compile import compile_plan, load, name_of
from scitq.model.template.plan import Plan, PlannedTask


def _plan(text: str, sources: Files | None = None, **given: str) -> Plan:
    template = load(text, "w.yaml")
    return compile_plan(template, given, name_of(template, given, "w.yaml"), sources or Files(), "w.yaml")


def _task(plan: Plan, name: str) -> PlannedTask:
    return next(task for task in plan.tasks if task.name == name)


def _waits(plan: Plan, name: str) -> list[str]:
    return [plan.tasks[position].name for position in _task(plan, name).depends_on]


HEAD = "name: w\nworkspace: s3://bucket/work\nshell: sh\ncontainer: alpine\n"


def test_the_smallest_file_is_one_task() -> None:
    plan = _plan("name: hello\nsteps:\n  - name: hello\n    container: alpine\n    command: echo 'Hello world'\n")
    assert [(task.name, task.spec.command, task.spec.container, task.spec.shell) for task in plan.tasks] == [
        ("hello", "echo 'Hello world'", "alpine", None)
    ]
    assert plan.recruiters == ()
    assert [(step.name, step.retries, step.tasks) for step in plan.steps] == [("hello", 0, 1)]


def test_steps_follow_each_other_per_item_and_a_grouped_one_gathers() -> None:
    plan = _plan(
        HEAD
        + """
iterate: {name: sample, values: [A, B]}
steps:
  - name: qc
    command: run {sample} {SAMPLE} {item} {step} {workflow}
    outputs: {good: "*.fq", logs: "*.log *.txt"}
  - name: align
    inputs: qc.good
    command: align
  - name: report
    inputs: [align, qc.logs]
    grouped: true
    command: report {SAMPLES} {SAMPLE_COUNT}
"""
    )
    assert [task.name for task in plan.tasks] == ["qc.A", "qc.B", "align.A", "align.B", "report"]
    assert _task(plan, "qc.A").spec.command == "run A A A qc w"
    assert _task(plan, "qc.A").spec.output == "s3://bucket/work/w/qc/A/"
    assert _task(plan, "qc.A").spec.env == {"SAMPLE": "A"}
    assert _task(plan, "align.B").spec.inputs == ("s3://bucket/work/w/qc/B/*.fq",)
    assert _waits(plan, "align.B") == ["qc.B"]
    report = _task(plan, "report")
    assert report.spec.command == "report A,B 2"
    assert report.spec.inputs == (
        "s3://bucket/work/w/align/A/",
        "s3://bucket/work/w/align/B/",
        "s3://bucket/work/w/qc/A/*.log",
        "s3://bucket/work/w/qc/A/*.txt",
        "s3://bucket/work/w/qc/B/*.log",
        "s3://bucket/work/w/qc/B/*.txt",
    )
    assert sorted(_waits(plan, "report")) == ["align.A", "align.B", "qc.A", "qc.B"]


def test_steps_may_stand_in_any_order() -> None:
    plan = _plan(HEAD + "steps:\n  - {name: b, command: b, inputs: a}\n  - {name: a, command: a}\n")
    assert [task.name for task in plan.tasks] == ["a", "b"]


def test_several_dimensions_and_keyed_grouping() -> None:
    plan = _plan(
        HEAD
        + """
iterate:
  name: sample
  values: [S1, S2]
  product: {name: chrom, start: 1, end: 3, step: 2}
steps:
  - {name: call, command: "call {sample} {chrom}"}
  - {name: merge, grouped_by: sample, inputs: call, command: "merge {sample} of {CHROMS}"}
  - {name: index, per_sample: false, command: index}
  - name: check
    depends: [index, {step: merge, per: item}]
    command: check
"""
    )
    assert [task.name for task in plan.tasks if task.step == "call"] == ["call.S1.1", "call.S1.3", "call.S2.1", "call.S2.3"]
    assert _waits(plan, "merge.S2") == ["call.S2.1", "call.S2.3"]
    assert _task(plan, "merge.S2").spec.command == "merge S2 of 1,3"
    assert _waits(plan, "check.S1.3") == ["index", "merge.S1"]


def test_each_gives_one_step_a_further_dimension() -> None:
    plan = _plan(
        HEAD
        + """
params: {seeds: "7,8"}
iterate: {name: sample, values: [A, B]}
steps:
  - {name: fit, each: {seed: "{params.seeds}", depth: [1]}, command: "fit {sample} {seed} {depth}"}
  - {name: best, inputs: fit, command: "best of {sample}"}
  - {name: all, inputs: {from: fit, per: all, into: "{sample}/{seed}"}, command: all}
"""
    )
    assert [task.name for task in plan.tasks][:4] == ["fit.A.7.1", "fit.A.8.1", "fit.B.7.1", "fit.B.8.1"]
    assert _waits(plan, "best.A") == ["fit.A.7.1", "fit.A.8.1"]
    assert _waits(plan, "all.A") == ["fit.A.7.1", "fit.A.8.1", "fit.B.7.1", "fit.B.8.1"]
    assert _task(plan, "all.B").spec.inputs[3] == "s3://bucket/work/w/fit/B.8.1/|mv:B/8"


def test_items_come_from_a_storage_by_folder_by_file_and_by_pattern() -> None:
    raw = [f"s3://bucket/raw/{name}/{name}_{end}.fq.gz" for name in ("A", "B") for end in (1, 2)] + ["s3://bucket/raw/A/notes.txt"]
    text = HEAD + 'iterate:\n  name: sample\n  uri: "{0}"\n  {1}\nsteps:\n  - {{name: s, inputs: sample.{2}, command: "x {{sample}}"}}\n'
    folders = _plan(text.format("s3://bucket/raw", 'fastqs: "*.fq.gz"', "fastqs"), Files({"s3://bucket/raw/": raw}))
    assert _task(folders, "s.A").spec.inputs == (raw[0], raw[1])
    files = _plan(text.format("s3://bucket/raw/*/*.gz", "match: 'A*'", "files"), Files({"s3://bucket/raw/*/*.gz": raw[:4]}))
    assert [task.name for task in files.tasks] == ["s.A_1", "s.A_2"]
    pairs = _plan(text.format("s3://bucket/raw/", "pattern: '(.+)_[12].fq.gz'", "files"), Files({"s3://bucket/raw/": raw}))
    assert [task.spec.inputs for task in pairs.tasks] == [(raw[0], raw[1]), (raw[2], raw[3])]


def test_a_grouped_step_gathers_the_files_of_all_items() -> None:
    raw = ["s3://b/raw/A/1.fq", "s3://b/raw/B/1.fq"]
    text = HEAD + 'iterate: {name: s, uri: "s3://b/raw/"}\nsteps:\n  - {name: g, inputs: s.files, grouped: true, command: x}\n'
    assert _plan(text, Files({"s3://b/raw/": raw})).tasks[0].spec.inputs == tuple(raw)


def test_items_come_from_the_lines_of_a_file() -> None:
    sources = Files(texts={"list.txt": "# samples\nA\n\n  B  \n", "uris.txt": "s3://b/raw/X1/*.fq\ns3://b/raw/X2/*.fq\n"})
    text = HEAD + "params: {list: list.txt}\niterate: {name: sample, file: '{params.list}'}\nsteps: [{name: s, command: 'x {sample}'}]\n"
    assert [task.spec.command for task in _plan(text, sources).tasks] == ["x A", "x B"]
    text = HEAD + "iterate: {name: sample, file: uris.txt, item: fastqs}\nsteps: [{name: s, inputs: sample.fastqs, command: x}]\n"
    plan = _plan(text, sources)
    assert [(task.item, task.spec.inputs) for task in plan.tasks] == [("X1", ("s3://b/raw/X1/*.fq",)), ("X2", ("s3://b/raw/X2/*.fq",))]


def test_items_come_from_a_table_whose_columns_are_values() -> None:
    plan = _plan(
        HEAD
        + """
iterate:
  name: pair
  source: tsv
  content: |
    ref,query,ref_file,depth
    A,A,s3://b/A.fa,10
    A,B,s3://b/A.fa,200
    B,A,s3://b/B.fa,3
  key: [ref, query]
steps:
  - {name: index, grouped_by: ref, inputs: "{pair.ref_file}", command: "index {ref}"}
  - {name: map, inputs: index, when: pair.depth < 100, command: "map {pair} {ref} {QUERY} {pair.depth}"}
"""
    )
    assert [task.name for task in plan.tasks] == ["index.A", "index.B", "map.A.A", "map.B.A"]
    assert _task(plan, "index.A").spec.inputs == ("s3://b/A.fa",)
    assert _waits(plan, "map.B.A") == ["index.B"]
    assert _task(plan, "map.B.A").spec.command == "map B.A B A 3"
    assert _task(plan, "map.B.A").spec.env == {"PAIR": "B.A", "REF": "B", "QUERY": "A"}


def test_only_names_in_braces_are_replaced() -> None:
    text = HEAD + 'params: {x: "it\'s", n: 7}\nvars: {GREETING: "hello {params.x}"}\nsteps:\n  - name: s\n    command: |\n      '
    for written, expected in {
        "{params.x}": "it's",
        "{GREETING}": "hello it's",
        "${params}": "${params}",
        "${x}": "${x}",
        "{{params.x}}": "{params.x}",
        "{{{params.x}}}": "{{params.x}}",
        "awk '{print $1}' {a,b} {1..3} {} { x; }": "awk '{print $1}' {a,b} {1..3} {} { x; }",
        "{params.x|quote}": "'it'\"'\"'s'",
        "{params.x|json} {params.x|upper}": "\"it's\" IT'S",
        "{params.n|format=%04d}": "0007",
    }.items():
        assert _plan(text + written + "\n").tasks[0].spec.command == expected + "\n", written


def test_a_parameter_without_a_value_takes_the_default_written_at_its_place() -> None:
    text = HEAD + "params: {f: {type: string}}\nsteps: [{name: s, command: 'ls {params.f:*}.gz'}]\n"
    assert _plan(text).tasks[0].spec.command == "ls *.gz"
    assert _plan(text, f="x").tasks[0].spec.command == "ls x.gz"


def test_parameters_have_types_and_steps_have_conditions() -> None:
    text = (
        HEAD
        + """
tag: "{params.depth}"
params:
  depth: {type: enum, choices: ["1x", "2x"], default: "2x"}
  n: {type: integer, default: 3, min: 1}
  rate: {type: float, default: 1e-3}
  deep: {type: boolean, default: No}
  note: {type: string}
steps:
  - {name: one, when: "params.depth == '1x' and not params.deep", command: one}
  - {name: two, when: "{params.deep}", command: two}
  - {name: three, when: "params.n in (3, 4) or params.rate > 0.5", command: "three {params.n} {params.rate} {params.deep}"}
  - {name: four, inputs: [one, three], command: four, shell: {cond: params.deep, true: bash, false: dash}}
"""
    )
    plan = _plan(text)
    assert plan.name == "w.2x"
    assert [task.name for task in plan.tasks] == ["three", "four"]
    assert [step.name for step in plan.steps] == ["three", "four"]
    assert _task(plan, "three").spec.command == "three 3 0.001 false"
    assert (_waits(plan, "four"), _task(plan, "four").spec.shell) == (["three"], "dash")
    other = _plan(text, depth="1x", n="9", deep="false", rate="0.7")
    assert [task.name for task in other.tasks] == ["one", "three", "four"]
    deep = _plan(text, deep="yes")
    assert _task(deep, "four").spec.shell == "bash"
    assert "two" in [task.name for task in deep.tasks]


def test_task_spec_retry_env_and_places_reach_the_tasks() -> None:
    plan = _plan(
        HEAD
        + """
retry: 2
publish_root: s3://bucket/results
env: {LANG: C.UTF-8}
task_spec: {cpu: 2, mem: 4}
iterate: {name: sample, values: [a/b]}
steps:
  - name: s
    command: x
    resource: ["s3://bucket/index.tgz|untar"]
    env: {N: "{sample}"}
    publish: true
    skip_if_exists: true
    accept_failure: true
    retry_on: [oom, 'exit:137']
    priority: -3
    task_spec: {cpus: 8, mem: 512MiB, disk: 1.5, gpus: 1, time_limit: 2h}
  - {name: t, inputs: s, retry: 0, accept_failure: true, output: "s3://bucket/x/{sample|basename}", command: x}
"""
    )
    task = _task(plan, "s.a/b")
    spec = task.spec
    assert (spec.cpus, spec.mem_gib, spec.disk_gb, spec.gpus, spec.time_limit_s) == (8, 0.5, 1.5, 1, 7200)
    assert spec.env == {"SAMPLE": "a/b", "LANG": "C.UTF-8", "N": "a/b"}
    assert (spec.output, spec.publish, spec.skip_if_exists) == (None, "s3://bucket/results/s/a_b/", True)
    assert (task.retries, task.priority, spec.retry_on) == (2, -3, ("oom", "exit:137"))
    assert spec.resources == ("s3://bucket/index.tgz|untar",)
    other = _task(plan, "t.a/b")
    assert (other.retries, other.depends_on, other.after_any) == (0, (), (0,))
    assert (other.spec.inputs, other.spec.output) == (("s3://bucket/results/s/a_b/",), "s3://bucket/x/b/")


def test_worker_pools_become_recruiters() -> None:
    plan = _plan(
        HEAD
        + """
params: {where: {type: provider_region, default: "aws.main:eu-west-1"}, most: 10}
worker_pool: {provider: "{params.where}", cpu: 8, mem: ">= 30", max_recruited: "{params.most}"}
iterate: {name: sample, values: [A, B]}
steps:
  - {name: a, command: x, task_spec: {cpu: 4, mem: "{sample:0}", prefetch: 50%}, when: "false"}
  - {name: b, command: x, task_spec: {cpu: 4, prefetch: 50%}, worker_pool: {mem: 60, task_batches: 2, gpu: true, timeout: 5m}}
  - name: c
    command: x
    task_spec: {concurrency: 3}
    worker_pool: [{provider: slurm.main, flavor: main}, {filter: "cost<1", eviction: "<= 20"}]
  - {name: d, command: x, worker_pool: none}
"""
    )
    first, *others = plan.recruiters
    assert (first.step, first.filter) == ("b", "provider~aws.main:region~eu-west-1:cpu>=8:mem>=60:gpus>0")
    assert (first.cpus_per_task, first.prefetch_percent, first.rounds, first.max_workers, first.timeout_s) == (4, 50, 2, 10, 300)
    assert [(each.step, each.rank, each.concurrency, each.max_workers) for each in others] == [("c", 1, 3, 10), ("c", 2, 3, 10)]
    assert others[0].filter == "provider~slurm.main:flavor~main:cpu>=8:mem>=30"
    assert others[1].filter.endswith("eviction<=20:cost<1")


@pytest.mark.parametrize(
    ("written", "filter_"),
    [("true", "gpus>0"), ("1", "gpus>=1"), ("'>= 2'", "gpus>=2"), ("'A100%'", "gpu~A100%"), ("false", ""), ("0", "")],
)
def test_a_pool_asks_for_gpus_by_number_or_by_name(written: str, filter_: str) -> None:
    plan = _plan(HEAD + f"steps: [{{name: a, command: x, worker_pool: {{gpu: {written}}}}}]\n")
    assert [each.filter for each in plan.recruiters] == [filter_]


def test_tasks_that_get_nothing_from_what_was_left_out_are_told() -> None:
    text = HEAD + "iterate: {name: x, values: [a, b, c]}\nsteps:\n  - {name: one, when: x == 'a', command: x}\n"
    plan = _plan(text + "  - {name: two, inputs: one, command: x}\n  - {name: all, grouped: true, inputs: one, command: x}\n")
    assert plan.notes == ("2 tasks of two (b, …) will have nothing from one, whose tasks for the same items are left out (when:)",)
    assert [_task(plan, name).spec.inputs for name in ("two.a", "two.b")] == [("s3://bucket/work/w/one/a/",), ()]
    assert _plan(text).notes == ()


def test_two_tasks_may_share_a_folder_that_the_file_names() -> None:
    text = (
        HEAD + "iterate: {name: s, values: [a, b]}\nsteps: [{name: a, command: x, output: s3://bucket/all/, publish: s3://bucket/final/}]\n"
    )
    assert [(task.spec.output, task.spec.publish) for task in _plan(text).tasks] == [("s3://bucket/all/", "s3://bucket/final/")] * 2


def test_merge_keys_of_yaml_share_groups() -> None:
    plan = _plan(HEAD + "steps:\n  - &base\n    name: a\n    command: x\n    env: {K: v}\n  - <<: *base\n    name: b\n    depends: a\n")
    assert [(task.name, task.spec.env) for task in plan.tasks] == [("a", {"K": "v"}), ("b", {"K": "v"})]


def test_ten_thousand_items_compile_in_linear_time() -> None:
    text = HEAD + "iterate: {name: n, start: 1, end: 10000}\nsteps:\n"
    text += "".join(f"  - {{name: s{k}, command: 'x {{n}}'{f', inputs: s{k - 1}' if k else ''}}}\n" for k in range(3))
    plan = _plan(text + "  - {name: end, grouped: true, inputs: s2, command: x}\n")
    assert len(plan.tasks) == 30001
    assert len(plan.tasks[-1].depends_on) == 10000
