/** Names as Kubernetes demands them (RFC 1123, lower case), for what goes into a path. */

const part = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/;

/** As namespaces are named: at most 63 characters, no dot. */
export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && part.test(text);
}

/**
 * A DNS subdomain, as most objects are named: at most 253 characters. The API server bounds the
 * whole and not each part.
 */
export function isDnsSubdomain(text: string): boolean {
  return text.length <= 253 && text.split('.').every((each) => part.test(each));
}
