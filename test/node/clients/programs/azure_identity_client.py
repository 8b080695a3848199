"""The azure-identity package: managed identity and the default credential chain."""

from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from job import run_job


def open_credential(step):
    named = step.get("id")
    if step["credential"] == "default":
        return DefaultAzureCredential(managed_identity_client_id=named and named["value"])
    if named is None:
        return ManagedIdentityCredential()
    if named["kind"] == "client":
        return ManagedIdentityCredential(client_id=named["value"])
    return ManagedIdentityCredential(identity_config={f"{named['kind']}_id": named["value"]})


def open_call(step):
    credential = open_credential(step)
    return lambda: credential.get_token(f"{step['resource']}/.default").token


run_job(open_call)
