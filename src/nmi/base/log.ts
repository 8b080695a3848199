/**
 * What the agent's parts need of a logger. Messages are constant and lower case, everything that
 * varies is a field, and no field ever holds a token, a secret or a full client id.
 */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/**
 * A resource as a caller named it, if it looks like one. A caller may put anything there, a token
 * of its own included, and that must not end in a log.
 */
export function loggableResource(resource: string): string {
  const isUri = /^[a-z][a-z0-9+.-]{1,20}:\/\/[A-Za-z0-9._:/-]{1,200}$/i.test(resource);
  const isGuid = /^[0-9a-f-]{36}(?:\/\.default)?$/i.test(resource);
  return isUri || isGuid ? resource : '[unusual]';
}

/** The path of a relayed request; not segments long enough for a token. */
export function loggablePath(path: string): string {
  return /^(?:\/[A-Za-z0-9._~-]{1,40}){1,12}\/?$/.test(path) ? path : '[unusual]';
}

/**
 * A client id as the replaced system logs it: first and last four characters. Short texts stay,
 * as they did there.
 */
export function redactClientId(clientId: string): string {
  if (clientId.length < 8) return clientId;
  return `${clientId.slice(0, 4)}##### REDACTED #####${clientId.slice(-4)}`;
}
