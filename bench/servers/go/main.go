// The control in another language: Go's net/http with the same bytes for every request.
// main HOST PORT BYTES
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func main() {
	size, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	body := []byte(strings.Repeat("x", size))
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	answer := func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Content-Type", "application/json; charset=utf-8")
		writer.Header().Set("Content-Length", os.Args[3])
		writer.Write(body)
	}
	panic(http.Serve(listener, http.HandlerFunc(answer)))
}
