"""The managed identity client of the msal package, which the Azure CLI logs in with too."""

import msal
import requests
from job import run_job


def open_call(step):
    named = step.get("id")
    identity = (
        msal.SystemAssignedManagedIdentity()
        if named is None
        else msal.UserAssignedManagedIdentity(**{f"{named['kind']}_id": named["value"]})
    )
    client = msal.ManagedIdentityClient(identity, http_client=requests.Session())

    def call():
        answer = client.acquire_token_for_client(resource=step["resource"])
        if "access_token" not in answer:
            raise RuntimeError(f"{answer.get('error')}: {answer.get('error_description')}")
        return answer["access_token"]

    return call


run_job(open_call)
