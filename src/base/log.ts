/**
 * The logger's interface for the parts of the agent. Messages are constant and lower case, variable
 * data is in fields, and no field ever contains a token, a secret or a full client id.
 */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/**
 * The resource of a request, if it looks like one. A caller may send anything as resource, even a
 * token, which must not reach a log.
 */
export function loggableResource(resource: string): string {
  const isUri = /^[a-z][a-z0-9+.-]{1,20}:\/\/[A-Za-z0-9._:/-]{1,200}$/i.test(resource);
  const isGuid = /^[0-9a-f-]{36}(?:\/\.default)?$/i.test(resource);
  return isUri || isGuid ? resource : '[unusual]';
}

/** An id as a request named it, if it is a GUID or the path of an Azure resource. */
export function loggableId(id: string): string {
  const isGuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id);
  const isPath = /^\/?subscriptions(?:\/[A-Za-z0-9._()-]{1,128}){1,12}$/i.test(id);
  return isGuid || isPath ? id : '[unusual]';
}

/** The path of a relayed request, without segments that are long enough for a token. */
export function loggablePath(path: string): string {
  return /^(?:\/[A-Za-z0-9._~-]{1,40}){1,12}\/?$/.test(path) ? path : '[unusual]';
}

/**
 * A client id in the replaced system's format: first and last four characters. Short texts are
 * returned unchanged, as in the replaced system.
 */
export function redactClientId(clientId: string): string {
  if (clientId.length < 8) return clientId;
  return `${clientId.slice(0, 4)}##### REDACTED #####${clientId.slice(-4)}`;
}
