// The baseline of the fleet: an agent's watches, written with client-go as its authors recommend.
// main KUBECONFIG NODES
// Prints "ready" when all are synced, and "seen NAME" when every node has seen the binding NAME,
// whose name begins with "marker-".
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const bindings = "azureidentitybindings"

var kinds = []string{"azureidentities", bindings, "azurepodidentityexceptions", "azureidentitygrants"}

type markers struct {
	sync.Mutex
	nodes int
	seen  map[string]map[int]bool
}

func (m *markers) see(name string, node int) {
	m.Lock()
	defer m.Unlock()
	if m.seen[name] == nil {
		m.seen[name] = map[int]bool{}
	}
	if m.seen[name][node] {
		return
	}
	m.seen[name][node] = true
	if len(m.seen[name]) == m.nodes {
		fmt.Println("seen " + name)
	}
}

func main() {
	nodes, err := strconv.Atoi(os.Args[2])
	check(err)
	seen := &markers{nodes: nodes, seen: map[string]map[int]bool{}}
	var synced sync.WaitGroup
	for node := range nodes {
		config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
		check(err)
		// Else all nodes of this process share connections.
		dialer := &net.Dialer{KeepAlive: 30 * time.Second}
		config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		}
		config.QPS = -1
		synced.Add(1)
		go func() {
			watch(config, node, seen)
			synced.Done()
		}()
	}
	synced.Wait()
	fmt.Println("ready")
	select {}
}

// Returns when the caches are synced.
func watch(config *rest.Config, node int, seen *markers) {
	stop := make(chan struct{})
	typed := rest.CopyConfig(config)
	typed.ContentType = "application/vnd.kubernetes.protobuf,application/json"
	typed.AcceptContentTypes = typed.ContentType
	client, err := kubernetes.NewForConfig(typed)
	check(err)
	selector := fields.ParseSelectorOrDie(fmt.Sprintf(
		"spec.nodeName=node-%d,status.phase!=Succeeded,status.phase!=Failed", node))
	pods := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.FieldSelector = selector.String()
		}))
	waits := []cache.InformerSynced{pods.Core().V1().Pods().Informer().HasSynced}
	pods.Start(stop)
	custom, err := dynamic.NewForConfig(config)
	check(err)
	objects := dynamicinformer.NewDynamicSharedInformerFactory(custom, 0)
	for _, kind := range kinds {
		resource := schema.GroupVersionResource{Group: "aadpodidentity.k8s.io", Version: "v1", Resource: kind}
		informer := objects.ForResource(resource).Informer()
		if kind == bindings {
			see := func(object any) {
				name := object.(*unstructured.Unstructured).GetName()
				if strings.HasPrefix(name, "marker-") {
					seen.see(name, node)
				}
			}
			_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: see})
			check(err)
		}
		waits = append(waits, informer.HasSynced)
	}
	objects.Start(stop)
	cache.WaitForCacheSync(stop, waits...)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
