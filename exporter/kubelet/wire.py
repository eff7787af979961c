"""The part of the kubelet's pod-resources API that is needed, as protobuf messages built from a description in code.

Field numbers are those of k8s.io/kubelet/pkg/apis/podresources/v1/api.proto, stable since Kubernetes 1.20; dynamic
resources came with 1.27. Fields that are not named here (CPUs, memory, topology) are skipped by the parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

LIST = "/v1.PodResourcesLister/List"

_STRING, _MESSAGE = 9, 11  # FieldDescriptorProto.Type
_ONE, _MANY = 1, 3  # FieldDescriptorProto.Label
# message -> (field, number, message or "" for a string, repeated)
_MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "CDIDevice": (("name", 1, "", False),),
    "ClaimResource": (
        ("cdi_devices", 1, "CDIDevice", True),
        ("driver_name", 2, "", False),
        ("pool_name", 3, "", False),
        ("device_name", 4, "", False),
    ),
    "DynamicResource": (
        ("claim_name", 2, "", False),
        ("claim_namespace", 3, "", False),
        ("claim_resources", 4, "ClaimResource", True),
    ),
    "ContainerDevices": (("resource_name", 1, "", False), ("device_ids", 2, "", True)),
    "ContainerResources": (
        ("name", 1, "", False),
        ("devices", 2, "ContainerDevices", True),
        ("dynamic_resources", 5, "DynamicResource", True),
    ),
    "PodResources": (
        ("name", 1, "", False),
        ("namespace", 2, "", False),
        ("containers", 3, "ContainerResources", True),
    ),
    "ListPodResourcesResponse": (("pod_resources", 1, "PodResources", True),),
}


@dataclass(frozen=True, slots=True)
class Held:
    """One device held by one container.

    `resource` is that of a device plugin and `device` its id for the device; with dynamic allocation `resource` is the
    driver, `claim` the name of the claim, `device` the name within the driver's pool, and `cdi` the names under which
    the container runtime was given it.
    """

    namespace: str
    pod: str
    container: str
    resource: str
    device: str
    claim: str = ""
    cdi: tuple[str, ...] = ()


@cache
def message(name: str) -> Any:
    """The class of a message. Needs protobuf, which comes with the extra `kubelet`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="podresources.proto", package="v1", syntax="proto3")
    for title, fields in _MESSAGES.items():
        described = file.message_type.add(name=title)
        for field, number, kind, many in fields:
            described.field.add(
                name=field,
                number=number,
                type=_MESSAGE if kind else _STRING,
                type_name=f".v1.{kind}" if kind else None,
                label=_MANY if many else _ONE,
            )
    pool = descriptor_pool.DescriptorPool()  # of its own: another library may have the real file in the default one
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{name}"))


def held(body: bytes) -> Iterator[Held]:
    """Every device of every container in a serialized ListPodResourcesResponse, one at a time: a list can be long.

    Raises ValueError where the bytes are none.
    """
    from google.protobuf.message import DecodeError

    answer = message("ListPodResourcesResponse")()
    try:
        answer.ParseFromString(body)
    except DecodeError as failure:
        raise ValueError(str(failure)) from None
    for pod in answer.pod_resources:
        for container in pod.containers:
            yield from _of(container, pod.namespace, pod.name)


def _of(container: Any, namespace: str, pod: str) -> Iterator[Held]:
    owner = (namespace, pod, container.name)
    for group in container.devices:
        for device in group.device_ids:
            yield Held(*owner, group.resource_name, device)
    for claim in container.dynamic_resources:
        for resource in claim.claim_resources:
            cdi = tuple(device.name for device in resource.cdi_devices)
            yield Held(*owner, resource.driver_name, resource.device_name, claim.claim_name, cdi)
