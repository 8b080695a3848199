/** Types of options: each parses a text, and describes the allowed values. */
import { isIP, isIPv4 } from 'node:net';
import { parseDuration } from '../../base/time/duration.ts';

export interface OptionType<T> {
  readonly kind: 'boolean' | 'integer' | 'duration' | 'ip' | 'choice' | 'list' | 'string';
  readonly allowed: string;
  /** Undefined: not allowed. */
  readonly parse: (text: string) => T | undefined;
  /** Of a duration, in milliseconds. */
  readonly range?: { readonly min: number; readonly max: number };
  readonly choices?: readonly string[];
  /** Of a choice: one that was removed, and what is allowed instead of it. */
  readonly removed?: { readonly choice: string; readonly allowed: string };
  /** Of a list: of each item. */
  readonly pattern?: RegExp;
  /** Undefined for free texts: a path, an address or a secret must not be published. */
  show?(value: T): string;
}

/** The texts of Go's strconv.ParseBool, which existing manifests contain. */
export const boolean: OptionType<boolean> = {
  kind: 'boolean',
  allowed: 'true or false',
  parse: (text) => {
    if (/^(?:1|t|T|TRUE|true|True)$/.test(text)) return true;
    return /^(?:0|f|F|FALSE|false|False)$/.test(text) ? false : undefined;
  },
  show: String,
};

/** @param why completes "true: ...". */
export function alwaysTrue(why: string): OptionType<true> {
  const parse = (text: string) => boolean.parse(text) || undefined;
  return { kind: 'boolean', allowed: `true: ${why}`, parse, show: String };
}

export function integer(min: number, max: number): OptionType<number> {
  return {
    kind: 'integer',
    allowed: `a whole number from ${min} to ${max}`,
    range: { min, max },
    parse: (text) => {
      const value = /^[+-]?\d{1,15}$/.test(text) ? Number(text) : NaN;
      return value >= min && value <= max ? value : undefined;
    },
    show: String,
  };
}

export const port = integer(1, 65_535);
export const portOrOff = integer(0, 65_535);

/** Whole seconds as a bare number, in milliseconds. */
export function seconds(min: number, max: number): OptionType<number> {
  const type = integer(min, max);
  return {
    ...type,
    parse: (text) => {
      const value = type.parse(text);
      return value === undefined ? undefined : value * 1000;
    },
    show: (value) => String(value / 1000),
  };
}

/** In milliseconds; 0 for never. */
export function durationOrNever(min: string, max: string): OptionType<number> {
  const [minMs = 0, maxMs = 0] = [parseDuration(min), parseDuration(max)];
  return {
    kind: 'duration',
    allowed: `a duration from ${min} to ${max}, or 0`,
    range: { min: minMs, max: maxMs },
    parse: (text) => {
      const value = text === '0' ? 0 : parseDuration(text);
      if (value === undefined || value === 0) return value;
      return value >= minMs && value <= maxMs ? value : undefined;
    },
    show: (value) => (value === 0 ? '0' : `${value / 1000}s`),
  };
}

const octet = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const ipv4Source = `${octet}(?:[.]${octet}){3}`;

export const ipv4: OptionType<string> = {
  kind: 'ip',
  allowed: 'an IPv4 address',
  pattern: new RegExp(`^(?:${ipv4Source})?$`),
  parse: (text) => (isIPv4(text) ? text : undefined),
  show: String,
};

/** Empty for all addresses. */
export const ipOrAll: OptionType<string> = {
  kind: 'string',
  allowed: 'an IP address',
  pattern: new RegExp(`^(?:${ipv4Source}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)?$`),
  parse: (text) => (text === '' || isIP(text) !== 0 ? text : undefined),
};

export function choice<const T extends string>(
  choices: readonly T[],
  allowed: string = choices.join(', '),
): OptionType<T> {
  const parse = (text: string) => choices.find((each) => each === text.toLowerCase());
  return { kind: 'choice', allowed, choices, parse, show: String };
}

export function list<T>(
  allowed: string,
  parseItem: (text: string) => T | undefined,
  pattern: RegExp,
): OptionType<readonly T[]> {
  return {
    kind: 'list',
    allowed: `${allowed}, comma separated`,
    pattern,
    parse: (text) => {
      const values = new Set<T>();
      for (const item of text.split(',').map((each) => each.trim())) {
        if (item === '') continue;
        const value = parseItem(item);
        if (value === undefined) return undefined;
        values.add(value);
      }
      return [...values];
    },
  };
}

export const anyText: OptionType<string> = {
  kind: 'string',
  allowed: 'text',
  parse: (text) => text,
};

export const path: OptionType<string> = {
  kind: 'string',
  allowed: 'a path',
  parse: (text) => text || undefined,
};

export function matching(pattern: RegExp, allowed: string): OptionType<string> {
  const parse = (text: string) => (pattern.test(text) ? text : undefined);
  return { kind: 'string', allowed, pattern, parse };
}

/** @param pattern matches `off` too, which is read as empty. */
export function pathOrOff(pattern: RegExp, allowed: string): OptionType<string> {
  const type = matching(pattern, allowed);
  return { ...type, parse: (text) => (text === 'off' ? '' : type.parse(text)) };
}
