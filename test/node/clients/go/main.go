// `client LIBRARY JOB`: one of the Go libraries; what it is asked to do and what it says is in
// ../programs/job.ts.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

type step struct {
	Credential string `json:"credential"`
	ID         *struct {
		Kind  string `json:"kind"`
		Value string `json:"value"`
	} `json:"id"`
	Resource   string `json:"resource"`
	Calls      int    `json:"calls"`
	UntilToken bool   `json:"untilToken"`
}

// Of one credential, one after the other.
type tokenCall func(ctx context.Context, resource string) (string, error)

var libraries = map[string]func(step) (tokenCall, error){
	"azidentity": openAzidentity,
	"msal":       openMsal,
}

type outcome struct {
	Identity string `json:"identity,omitempty"`
	Failure  string `json:"failure,omitempty"`
}

func main() {
	open, found := libraries[os.Args[1]]
	if !found {
		fail(fmt.Errorf("no library %q", os.Args[1]))
	}
	var steps []step
	if err := json.Unmarshal([]byte(os.Args[len(os.Args)-1]), &steps); err != nil {
		fail(err)
	}
	outcomes := []outcome{}
	for _, s := range steps {
		call, err := open(s)
		if err != nil {
			fail(err)
		}
		for range s.Calls {
			got := try(call, s.Resource)
			outcomes = append(outcomes, got)
			if !s.UntilToken {
				continue
			}
			if got.Identity != "" {
				break
			}
			time.Sleep(time.Second)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string][]outcome{"outcomes": outcomes}); err != nil {
		fail(err)
	}
}

func try(call tokenCall, resource string) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	token, err := call(ctx, resource)
	if err == nil {
		var name string
		if name, err = identityOf(token); err == nil {
			return outcome{Identity: name}
		}
	}
	return outcome{Failure: err.Error()}
}

func identityOf(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		Identity string `json:"lab_identity"`
	}
	err = json.Unmarshal(payload, &claims)
	return claims.Identity, err
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

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
