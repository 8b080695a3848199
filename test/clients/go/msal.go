package main

import (
	"context"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

func openMsal(s step) (tokenCall, error) {
	client, err := managedidentity.New(msalID(s))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, resource string) (string, error) {
		result, err := client.AcquireToken(ctx, resource)
		return result.AccessToken, err
	}, nil
}

func msalID(s step) managedidentity.ID {
	if s.ID == nil {
		return managedidentity.SystemAssigned()
	}
	switch s.ID.Kind {
	case "resource":
		return managedidentity.UserAssignedResourceID(s.ID.Value)
	case "object":
		return managedidentity.UserAssignedObjectID(s.ID.Value)
	default:
		return managedidentity.UserAssignedClientID(s.ID.Value)
	}
}
