/**
 * The scale set of a node, which Azure assigns identities to, by the name of the node: that of the
 * scale set, and six digits for the instance. Any other node is one by itself.
 */
export function scaleSetOf(node: string): string {
  return /^(.*vmss)[0-9a-z]{6}$/.exec(node)?.[1] ?? node;
}
