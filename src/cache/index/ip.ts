/**
 * IP addresses as keys, one spelling per address. The kubelet, the kernel and a dual-stack socket
 * spell the same address differently, and two spellings would hide that two pods share an address.
 */
import { isIPv4, isIPv6, SocketAddress } from 'node:net';

const mappedPrefix = '::ffff:';

/**
 * The canonical spelling of an address: dotted for IPv4 and IPv4-mapped IPv6, the C library's
 * spelling for every other IPv6 address. A zone id is dropped. Leading zeros in an IPv4 octet are
 * refused, because some parsers read them as octal.
 *
 * @returns `undefined` when the text is no address; never throws. A dotted IPv4 text is returned
 * unchanged, without allocation.
 */
export function canonicalIp(text: string): string | undefined {
  if (isIPv4(text)) return text;
  if (!isIPv6(text)) return undefined;
  const [withoutZone = ''] = text.split('%');
  const { address } = new SocketAddress({ address: withoutZone, family: 'ipv6' });
  const isMapped = address.startsWith(mappedPrefix) && address.includes('.');
  return isMapped ? address.slice(mappedPrefix.length) : address;
}
