"""The gate on evaluations of known values: what passes, what does not, and how that is said."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline import gate
from pipeline.config import GateConfig, ProtectedSlicesConfig, RuleConfig
from pipeline.evaluation_results import EvaluationResult, MetricValue

NOISE = MetricValue(0.11, 0.09, 0.13, 0.108, 0.002, -0.001, 0.005)
GAIN = MetricValue(0.12, 0.10, 0.14, 0.10, 0.02, 0.01, 0.03)
HARM = MetricValue(0.05, 0.03, 0.07, 0.10, -0.05, -0.08, -0.02)


def _result(overall: MetricValue, **slices: MetricValue) -> EvaluationResult:
    by_name = {"overall": {"ndcg@10": overall}, **{f"gender={name}": {"ndcg@10": v} for name, v in slices.items()}}
    return EvaluationResult(by_name, dict.fromkeys(by_name, 900), dict.fromkeys(by_name, 90))


def _failures(config: GateConfig, result: EvaluationResult) -> list[str]:
    return gate.failures(gate.judge(config, result))


BETTER = RuleConfig(metric="ndcg@10", minimum_change=0.0)
PROTECT = ProtectedSlicesConfig(slices=(("gender",),))


def test_a_gain_passes_and_a_gain_within_noise_does_not():
    assert _failures(GateConfig(rules=(BETTER,)), _result(GAIN)) == []
    assert _failures(GateConfig(rules=(BETTER,)), _result(NOISE)) == [
        "ndcg@10 overall changed by +0.002 (95 %: -0.001 to +0.005) against the last blessed model; "
        "the gate asks for a change of more than +0 with 95 % confidence"
    ]
    uncertain = BETTER.model_copy(update={"certain": False})
    assert _failures(GateConfig(rules=(uncertain,)), _result(NOISE)) == []


def test_harm_to_a_protected_slice_outweighs_any_gain():
    config = GateConfig(rules=(BETTER,), protected=(PROTECT,))
    assert _failures(config, _result(GAIN, F=GAIN, M=NOISE)) == []
    table = gate.judge(config, _result(GAIN, F=HARM, M=GAIN))
    assert [(line.slice, line.passed) for line in table] == [
        ("overall", True), ("gender=F", False), ("gender=M", True)
    ]  # fmt: skip
    assert gate.failures(table) == [
        "ndcg@10 on gender=F changed by -0.05 (95 %: -0.08 to -0.02) against the last blessed model; "
        "the gate asks for no significant harm on a protected slice"
    ]
    tolerant = PROTECT.model_copy(update={"tolerance": 0.03})
    assert _failures(GateConfig(protected=(tolerant,)), _result(GAIN, F=HARM)) == []


def test_less_is_better_for_errors():
    config = GateConfig(
        rules=(RuleConfig(metric="rank_log_loss", maximum=0.6, maximum_change=0.0),),
        protected=(ProtectedSlicesConfig(slices=(("gender",),), metric="rank_log_loss"),),
    )
    lower = MetricValue(0.5, 0.45, 0.55, 0.6, -0.1, -0.15, -0.05)
    higher = MetricValue(0.58, 0.52, 0.64, 0.5, 0.08, 0.02, 0.14)

    def evaluation(of_women: MetricValue) -> EvaluationResult:
        slices = {"overall": {"rank_log_loss": lower}, "gender=F": {"rank_log_loss": of_women}}
        return EvaluationResult(slices, dict.fromkeys(slices, 900), dict.fromkeys(slices, 90))

    assert _failures(config, evaluation(lower)) == []
    assert [line.bound for line in gate.judge(config, evaluation(higher))] == ["upper", "upper", "lower"]
    (reason,) = _failures(config, evaluation(higher))
    assert reason.startswith("rank_log_loss on gender=F changed by +0.08 (95 %: +0.02 to +0.14)")


def test_small_slices_are_left_out_and_say_so():
    result = dataclasses.replace(_result(GAIN, F=HARM), user_counts={"overall": 90, "gender=F": 7})
    rule = RuleConfig(metric="ndcg@10", slice={"gender": "F"}, minimum=0.9, least_users=20)
    table = gate.judge(GateConfig(rules=(BETTER, rule), protected=(PROTECT,)), result)
    assert [line.passed for line in table] == [True, None, None]
    assert table[1].reason == table[2].reason == "not judged: 7 users on gender=F, fewer than 20"
    assert gate.failures(table) == []
    assert gate.failures(table[1:]) == [gate.NO_RULE]


def test_a_first_model_passes_rules_about_changes_and_no_others():
    first = MetricValue(0.12, 0.10, 0.14)
    config = GateConfig(
        rules=(BETTER, RuleConfig(metric="ndcg@10", minimum=0.11)), protected=(PROTECT,)
    )  # fmt: skip
    table = gate.judge(config, _result(first, F=first))
    assert [line.passed for line in table] == [True, False, None]
    assert table[0].reason == table[2].reason == gate.NO_BASELINE
    assert gate.failures(table) == [
        "ndcg@10 overall is 0.12 (95 %: 0.1 to 0.14); the gate asks for at least 0.11 with 95 % confidence"
    ]


def test_a_model_like_the_last_one_is_no_improvement_and_no_harm():
    same = MetricValue(0.1, 0.08, 0.12, 0.1, 0.0, 0.0, 0.0)
    config = GateConfig(rules=(BETTER,), protected=(PROTECT,))
    assert [line.passed for line in gate.judge(config, _result(same, F=same))] == [False, True]
    tolerant = BETTER.model_copy(update={"minimum_change": -0.001})
    assert _failures(GateConfig(rules=(tolerant,)), _result(same)) == []


def test_protection_that_cannot_be_given_is_refused():
    config = GateConfig(protected=(PROTECT,))
    assert _failures(config, _result(GAIN)) == ["no test example falls into a slice by gender that both models know"]
    lost = MetricValue(float("nan"), None, None, 0.1, float("nan"))
    assert _failures(config, _result(GAIN, F=lost, M=GAIN)) == [
        "ndcg@10 on gender=F has no defined value, which the last blessed model has"
    ]


def test_off_policy_rules_count_the_users_that_something_was_shown_to():
    slices = {"overall": {"policy_value_ips": MetricValue(0.5, 0.4, 0.6)}}
    rule = RuleConfig(metric="policy_value_ips", minimum=0.9, least_users=50)
    few = EvaluationResult(slices, {"overall": 10}, {"overall": 5}, {"overall": 100})
    assert len(_failures(GateConfig(rules=(rule,)), few)) == 1
    shown_to_few = EvaluationResult(slices, {"overall": 900}, {"overall": 100}, {"overall": 5})
    assert _failures(GateConfig(rules=(rule,)), shown_to_few) == [gate.NO_RULE]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (MetricValue(float("nan")), "ndcg@10 on gender=F has no defined value; the gate asks for at least 0"),
        (MetricValue(0.5), "ndcg@10 on gender=F is 0.5 (no interval: too few users); the gate asks for at least 0"),
    ],
)
def test_what_is_undefined_or_uncertain_fails(value, reason):
    rule = RuleConfig(metric="ndcg@10", slice={"gender": "F"}, minimum=0.0)
    assert _failures(GateConfig(rules=(rule,)), _result(GAIN, F=value)) == [f"{reason} with 95 % confidence"]


def test_missing_slices_and_empty_gates_let_nothing_through():
    rule = RuleConfig(metric="ndcg@10", slice={"gender": "X"}, minimum=0.0)
    assert _failures(GateConfig(rules=(rule,)), _result(GAIN)) == [
        "no test example falls into the slice that the gate names: gender=X"
    ]
    assert _failures(GateConfig(), _result(GAIN)) == [gate.NO_RULE]


def test_documents_hold_no_nan():
    (line,) = gate.judge(GateConfig(rules=(BETTER,)), _result(MetricValue(0.1, float("nan"), float("nan"), 0.1, 0.0)))
    document = line.model_dump()
    assert document["lower"] is None and document["passed"] is False and document["slice"] == "overall"
