package main

import (
	"context"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

func openAzidentity(s step) (tokenCall, error) {
	credential, err := openAzidentityCredential(s)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, resource string) (string, error) {
		options := policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}}
		token, err := credential.GetToken(ctx, options)
		return token.Token, err
	}, nil
}

func openAzidentityCredential(s step) (azcore.TokenCredential, error) {
	if s.Credential == "default" {
		// This chain takes the id from the environment alone.
		os.Unsetenv("AZURE_CLIENT_ID")
		if s.ID != nil {
			os.Setenv("AZURE_CLIENT_ID", s.ID.Value)
		}
		return azidentity.NewDefaultAzureCredential(nil)
	}
	options := azidentity.ManagedIdentityCredentialOptions{}
	if s.ID != nil {
		switch s.ID.Kind {
		case "client":
			options.ID = azidentity.ClientID(s.ID.Value)
		case "resource":
			options.ID = azidentity.ResourceID(s.ID.Value)
		case "object":
			options.ID = azidentity.ObjectID(s.ID.Value)
		}
	}
	return azidentity.NewManagedIdentityCredential(&options)
}
