/** Names by the rules of Kubernetes (RFC 1123, lower case), for parts of a URL path. */

const part = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/;

/** A DNS label, such as the name of a namespace: at most 63 characters, no dot. */
export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && part.test(text);
}

/**
 * A DNS subdomain, such as the name of most objects: at most 253 characters. The API server limits
 * the whole name and not each label.
 */
export function isDnsSubdomain(text: string): boolean {
  return text.length <= 253 && text.split('.').every((each) => part.test(each));
}
