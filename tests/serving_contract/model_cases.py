"""GetModelMetadata and GetModelStatus: what they answer, and how they fail."""

from __future__ import annotations

import grpc

from tests.serving_contract.contract import Answer, Failure, RpcCase
from tests.serving_contract.lookup_cases import lookup_failures
from tests.serving_contract.messages import request, spec

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_METADATA = "servables/tensorflow/get_model_metadata_impl.cc:"
_STATUS = "model_servers/get_model_status_impl.cc:"
_SIGNATURES = 'metadata_field: "signature_def" '


def model_cases() -> list[RpcCase]:
    """Returns every case of GetModelMetadata and GetModelStatus."""
    lookups = lookup_failures("GetModelMetadata", _SIGNATURES, _METADATA + "76")
    return lookups + _metadata_failures() + _metadata_answers() + _status_failures() + _status_answers()


def _metadata_failures() -> list[RpcCase]:
    def fails(name: str, text: str, message: str, line: int, note: str = "") -> RpcCase:
        return RpcCase(
            "GetModelMetadata",
            name,
            request("GetModelMetadata", text),
            Failure(_INVALID, message),
            f"{_METADATA}{line}",
            note,
        )

    no_field = "GetModelMetadataRequest must specify at least one metadata_field"
    return [
        fails("no metadata_field", spec(), no_field, 35),
        fails("no metadata_field and an unknown model", spec("absent"), no_field, 89, "Fields are checked first."),
        fails(
            "unknown metadata_field",
            spec() + 'metadata_field: "assets" ',
            "Metadata field assets is not supported",
            41,
        ),
        fails(
            "unknown metadata_field beside a known one",
            spec() + _SIGNATURES + 'metadata_field: "assets" ',
            "Metadata field assets is not supported",
            41,
        ),
    ]


def _metadata_answers() -> list[RpcCase]:
    def info(name: str) -> str:
        return f'name: "{name}:0" dtype: DT_FLOAT tensor_shape {{ dim {{ size: -1 }} }}'

    signature = (
        f'signature_def {{ key: "serving_default" value {{ inputs {{ key: "x" value {{ {info("x")} }} }} '
        f'outputs {{ key: "y" value {{ {info("y")} }} }} method_name: "tensorflow/serving/predict" }} }}'
    )
    answer = spec("plain", version=4) + (
        'metadata { key: "signature_def" value { '
        f"[type.googleapis.com/tensorflow.serving.SignatureDefMap] {{ {signature} }} }} }}"
    )

    def answers(name: str, text: str) -> RpcCase:
        make = request("GetModelMetadata", text)
        note = "`model_spec` names no signature."
        return RpcCase("GetModelMetadata", name, make, Answer(answer), _METADATA + "60", note)

    return [
        answers("signatures", spec("plain") + _SIGNATURES),
        answers("signatures of a version", spec("plain", version=4) + _SIGNATURES),
        answers("signatures, asked for twice", spec("plain") + 2 * _SIGNATURES),
        answers("signature name in the request", spec("plain", signature_name="absent") + _SIGNATURES),
    ]


def _status_failures() -> list[RpcCase]:
    def fails(name: str, text: str, code: grpc.StatusCode, message: str, line: int, note: str = "") -> RpcCase:
        make = request("GetModelStatus", text)
        return RpcCase("GetModelStatus", name, make, Failure(code, message), f"{_STATUS}{line}", note)

    not_found = grpc.StatusCode.NOT_FOUND
    none = "Could not find any versions of model "
    return [
        fails("no model_spec", "", _INVALID, "Missing ModelSpec", 70),
        fails("empty model name", "model_spec {}", not_found, none, 99, "Unlike the other RPCs: NOT_FOUND."),
        fails("unknown model", spec("absent"), not_found, none + "absent", 99),
        fails("unknown version", spec(version=99), not_found, "Could not find version 99 of model half_plus", 89),
        fails(
            "version of an unknown model",
            spec("absent", version=1),
            not_found,
            "Could not find version 1 of model absent",
            89,
        ),
        fails("label of an unknown model", spec("absent", version_label="stable"), not_found, none + "absent", 99),
    ]


def _status_answers() -> list[RpcCase]:
    def answers(name: str, text: str, versions: tuple[int, ...], note: str = "") -> RpcCase:
        states = "".join(f"model_version_status {{ version: {v} state: AVAILABLE status {{}} }} " for v in versions)
        return RpcCase("GetModelStatus", name, request("GetModelStatus", text), Answer(states), _STATUS + "102", note)

    return [
        answers("one version", spec("plain"), (4,), "`status` is set, and empty."),
        answers("two versions", spec(), (3, 2), "The newest first."),
        answers("version", spec(version=2), (2,)),
        answers("label", spec(version_label="stable"), (3, 2), "Labels are ignored: all versions."),
        answers("unknown label", spec(version_label="nightly"), (3, 2), "Labels are ignored: all versions."),
    ]
