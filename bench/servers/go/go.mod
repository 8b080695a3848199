module entra-pod-identity/bench/go-http

go 1.24
