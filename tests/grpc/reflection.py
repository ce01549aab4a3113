"""A client that knows nothing but an address, as grpcurl does: services, messages and their
fields come from the server's reflection, requests and replies are JSON."""

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

# v1 differs from v1alpha in its name alone, and grpcio-reflection has stubs of v1alpha only.
VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class Refused(Exception):
    """A call that ended with an error."""

    def __init__(self, error):
        super().__init__(f"{error.code().name}: {error.details()}")
        self.code = error.code().name
        self.details = error.details()


class Client:
    """One server."""

    def __init__(self, address, reflection=VERSIONS[0]):
        self.address = address
        self.channel = grpc.insecure_channel(address)
        self.reflection = self.channel.stream_stream(
            f"/{reflection}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self.pool = descriptor_pool.DescriptorPool()
        self.known = set()

    def _reflect(self, **request):
        request = reflection_pb2.ServerReflectionRequest(**request)
        reply = next(iter(self.reflection(iter([request]), timeout=10)))
        if reply.HasField("error_response"):
            raise LookupError(reply.error_response.error_message)
        return reply

    def list(self):
        """`grpcurl HOST list`"""
        reply = self._reflect(list_services="")
        return sorted(service.name for service in reply.list_services_response.service)

    def _learn(self, reply):
        for data in reply.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name in self.known:
                continue
            self.known.add(file.name)
            for needed in file.dependency:
                if needed not in self.known:
                    self._learn(self._reflect(file_by_filename=needed))
            self.pool.AddSerializedFile(data)

    def describe(self, service):
        """`grpcurl HOST describe SERVICE`"""
        try:
            return self.pool.FindServiceByName(service)
        except KeyError:
            self._learn(self._reflect(file_containing_symbol=service))
            return self.pool.FindServiceByName(service)

    def _stub(self, method):
        service, name = method.split("/")
        found = self.describe(service).FindMethodByName(name)
        if found is None:
            raise LookupError(f"service {service!r} does not include a method named {name!r}")
        kinds = (found.input_type, found.output_type)
        asked, reply = (message_factory.GetMessageClass(kind) for kind in kinds)
        open_ = self.channel.unary_stream if found.server_streaming else self.channel.unary_unary
        stub = open_(
            f"/{service}/{name}",
            request_serializer=asked.SerializeToString,
            response_deserializer=reply.FromString,
        )
        return stub, asked

    def call(self, method, request=None, headers=None, timeout=40):
        """`grpcurl -d REQUEST [-H NAME: VALUE] HOST SERVICE/METHOD`, whose reply is JSON."""
        stub, asked = self._stub(method)
        message = json_format.ParseDict(request or {}, asked())
        metadata = list((headers or {}).items())
        try:
            return json_format.MessageToDict(stub(message, metadata=metadata, timeout=timeout))
        except grpc.RpcError as error:
            raise Refused(error) from None

    def stream(self, method, request=None, timeout=120):
        """The replies of a streaming call, as they come; `cancel()` ends it."""
        stub, asked = self._stub(method)
        return Stream(stub(json_format.ParseDict(request or {}, asked()), timeout=timeout))


class Stream:
    """Replies of a streaming call."""

    def __init__(self, replies):
        self.replies = replies

    def next(self):
        try:
            return json_format.MessageToDict(next(self.replies))
        except grpc.RpcError as error:
            raise Refused(error) from None

    def cancel(self):
        self.replies.cancel()
