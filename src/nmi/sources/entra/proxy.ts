/** The proxy to Entra ID, from the environment variables that curl and Go use. Pure. */
import { StartError } from '../../../base/start-error.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** `HTTP_PROXY` is for plain http. @throws StartError `CONFIG`, without the value. */
export function parseProxy(environment: Environment) {
  const name = ['https_proxy', 'HTTPS_PROXY'].find((key) => textOf(environment, key) !== '');
  if (name === undefined) return undefined;
  const text = textOf(environment, name);
  // curl and Go treat a bare "host:port" as a plain http proxy.
  const url = URL.parse(text.includes('://') ? text : `http://${text}`);
  if (url === null || !/^https?:$/.test(url.protocol) || !isDecodable(url)) {
    const problem = `${name} is not the URL of an http or https proxy`;
    throw new StartError('CONFIG', problem, `correct ${name}`);
  }
  const noProxy = textOf(environment, 'no_proxy') || textOf(environment, 'NO_PROXY');
  return { url: url.href, noProxy };
}

function textOf(environment: Environment, name: string): string {
  return environment[name]?.trim() ?? '';
}

function isDecodable({ username, password }: URL): boolean {
  try {
    decodeURIComponent(username + password);
    return true;
  } catch {
    return false;
  }
}
