/** The current state of one pod at the API server, which may be newer than its watch. */
import type { ObjectName } from '../../../cache/index/object-name.ts';
import type { Pod } from '../../../cache/index/objects.ts';
import { asRecord } from '../../../base/json-value.ts';
import type { JsonReader } from '../api/client.ts';
import { parsePod } from './parse.ts';

const timeoutMs = 5_000;

/**
 * A list of one pod of the node, read through to the server's storage: the agent has permission to list
 * pods but not to get them, and those of its node only.
 * @returns undefined if there is none, or none that can be used.
 * @throws KubeError
 */
export async function readPod(
  client: JsonReader,
  node: string,
  { namespace, name }: ObjectName,
): Promise<Pod | undefined> {
  const fieldSelector = `metadata.name=${name},spec.nodeName=${node}`;
  const query = new URLSearchParams({ fieldSelector });
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods?${query.toString()}`;
  const items: unknown = asRecord(await client.getJson(path, { timeoutMs }))?.['items'];
  const parsed = Array.isArray(items) ? items.map(parsePod) : [];
  return parsed.flatMap((each) => (each.ok ? [each.value] : [])).find((pod) => pod.name === name);
}
