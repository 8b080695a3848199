/**
 * IP addresses as look-up keys: one spelling for each address, whoever wrote it. The kubelet, the
 * kernel and a dual-stack socket spell the same address differently, and two spellings of one
 * address would hide a collision of two pods.
 */

const dot = 0x2e;
const colon = 0x3a;
const groupCount = 8;

/**
 * The one spelling of an address: dotted for IPv4 and for IPv4-mapped IPv6, RFC 5952 for every
 * other IPv6 address. A zone id is dropped. Leading zeros in an IPv4 octet are refused, because
 * some readers take them for octal.
 *
 * @returns `undefined` when the text is no address; never throws. A canonical dotted IPv4 text is
 * returned as it is, without allocation.
 */
export function canonicalIp(text: string): string | undefined {
  if (parseIpv4(text, 0, text.length) !== undefined) return text;
  const end = endBeforeZone(text);
  if (end === undefined) return undefined;
  const groups = parseIpv6(text, end);
  if (groups === undefined) return undefined;
  return mappedIpv4(groups) ?? renderIpv6(groups);
}

/** Big-endian value of the dotted IPv4 address that fills `text` from `start` to `end`. */
function parseIpv4(text: string, start: number, end: number): number | undefined {
  if (end - start < 7 || end - start > 15) return undefined;
  let address = 0;
  let octets = 0;
  let at = start;
  while (octets < 4) {
    const first = at;
    let octet = 0;
    while (at < end && at - first < 3) {
      const digit = text.charCodeAt(at) - 0x30;
      if (digit < 0 || digit > 9) break;
      octet = octet * 10 + digit;
      at++;
    }
    if (at === first || octet > 255) return undefined;
    if (at - first > 1 && text.charCodeAt(first) === 0x30) return undefined;
    address = address * 256 + octet;
    octets++;
    if (octets === 4) break;
    if (at === end || text.charCodeAt(at) !== dot) return undefined;
    at++;
  }
  return at === end ? address : undefined;
}

function endBeforeZone(text: string): number | undefined {
  const percent = text.indexOf('%');
  if (percent === -1) return text.length;
  return /^[0-9A-Za-z.:-]+$/.test(text.slice(percent + 1)) ? percent : undefined;
}

/** The eight 16-bit groups of the IPv6 address that fills `text` up to `end`. */
function parseIpv6(text: string, end: number): readonly number[] | undefined {
  const groups: number[] = [];
  let gap = -1;
  let at = 0;
  if (end >= 2 && text.charCodeAt(0) === colon && text.charCodeAt(1) === colon) {
    gap = 0;
    at = 2;
  }
  while (at < end) {
    if (groups.length === groupCount) return undefined;
    const start = at;
    let group = 0;
    while (at < end && at - start < 4) {
      const digit = hexDigit(text.charCodeAt(at));
      if (digit === -1) break;
      group = group * 16 + digit;
      at++;
    }
    if (at === start) return undefined;
    if (at < end && text.charCodeAt(at) === dot) {
      const address = parseIpv4(text, start, end);
      if (address === undefined) return undefined;
      groups.push(Math.floor(address / 0x10000), address % 0x10000);
      break;
    }
    groups.push(group);
    if (at === end) break;
    if (text.charCodeAt(at) !== colon) return undefined;
    at++;
    if (at === end) return undefined;
    if (text.charCodeAt(at) !== colon) continue;
    if (gap !== -1) return undefined;
    gap = groups.length;
    at++;
  }
  if (gap === -1) return groups.length === groupCount ? groups : undefined;
  if (groups.length >= groupCount) return undefined;
  const zeros = Array.from({ length: groupCount - groups.length }, () => 0);
  return [...groups.slice(0, gap), ...zeros, ...groups.slice(gap)];
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}

/** `::ffff:0:0/96`: how a dual-stack socket reports an IPv4 peer. */
function mappedIpv4(groups: readonly number[]): string | undefined {
  const [a, b, c, d, e, prefix, high, low] = groups;
  if (high === undefined || low === undefined) return undefined;
  if (a !== 0 || b !== 0 || c !== 0 || d !== 0 || e !== 0 || prefix !== 0xffff) return undefined;
  return `${high >> 8}.${high & 0xff}.${low >> 8}.${low & 0xff}`;
}

/** RFC 5952: the first longest run of two or more zero groups becomes `::`. */
function renderIpv6(groups: readonly number[]): string {
  let runStart = -1;
  let runLength = 1;
  let length = 0;
  for (const [index, group] of groups.entries()) {
    length = group === 0 ? length + 1 : 0;
    if (length <= runLength) continue;
    runLength = length;
    runStart = index - length + 1;
  }
  if (runStart === -1) return renderGroups(groups);
  const head = renderGroups(groups.slice(0, runStart));
  const tail = renderGroups(groups.slice(runStart + runLength));
  return `${head}::${tail}`;
}

function renderGroups(groups: readonly number[]): string {
  return groups.map((group) => group.toString(16)).join(':');
}
