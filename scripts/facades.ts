/**
 * Packages that the bundle loads piece by piece. A start of the agent needs little of them, but
 * their entry modules evaluate everything. In the bundle a facade replaces such an entry: all
 * its names, each a getter that loads a piece when it is first used.
 *
 * Measured for a start of the agent with a kubeconfig: 140 ms of CPU on the main thread and 95 MB
 * resident without this file, 118 ms and 92 MB with it (Node 26.10, November 2026).
 */
import type { Plugin } from 'rolldown';

interface Facade {
  /** Names that have a file of their own; the others load the package's entry. */
  readonly files?: Readonly<Record<string, string>>;
  /** What the entry does besides exporting. */
  readonly setUp?: string;
}

const facades: Readonly<Record<string, Facade>> = {
  undici: {
    files: {
      Agent: 'undici/lib/dispatcher/agent.js',
      EnvHttpProxyAgent: 'undici/lib/dispatcher/env-http-proxy-agent.js',
      Pool: 'undici/lib/dispatcher/pool.js',
      buildConnector: 'undici/lib/core/connect.js',
    },
    setUp:
      "Object.assign(require('undici/lib/dispatcher/dispatcher.js').prototype, " +
      "require('undici/lib/api/index.js'));",
  },
  'prom-client': {
    files: {
      Registry: 'prom-client/lib/registry.js',
      Counter: 'prom-client/lib/counter.js',
      Gauge: 'prom-client/lib/gauge.js',
    },
  },
  // What the Kubernetes client's configuration imports for kubeconfigs, clouds and proxies.
  hpagent: {},
  'js-yaml': {},
  'jsonpath-plus': {},
  'openid-client': {},
  socks: {},
  'socks-proxy-agent': {},
};

const lateHttp2Id = '\0late-http2';
const prefix = '\0facade:';

export const lazyPackages: Plugin = {
  name: 'lazy-packages',
  resolveId: {
    filter: { id: new RegExp(`^(?:${Object.keys(facades).join('|')})$`) },
    handler(source, importer) {
      // The facade itself means the package.
      return importer?.startsWith(prefix) === true ? null : `${prefix}${source}`;
    },
  },
  load: {
    filter: { id: /^\0facade:/ },
    async handler(id) {
      return { code: await renderFacade(id.slice(prefix.length)), moduleType: 'js' };
    },
  },
};

/** Only a server that chooses HTTP/2 needs it, and Node's own half of it is large. */
export const lateHttp2: Plugin = {
  name: 'late-http2',
  resolveId: {
    filter: { id: /^\.\/client-h2(?:\.js)?$/ },
    handler: (_source, importer) =>
      importer?.endsWith('/undici/lib/dispatcher/client.js') === true ? lateHttp2Id : null,
  },
  load: {
    filter: { id: /^\0late-http2$/ },
    handler: () => ({
      code: "module.exports = (...args) => require('undici/lib/dispatcher/client-h2.js')(...args);",
      moduleType: 'js',
    }),
  },
};

/** The generated models of the Kubernetes client, for a function that nobody calls here. */
export const noGeneratedModels: Plugin = {
  name: 'no-generated-models',
  load: {
    filter: { id: /@kubernetes\/client-node\/dist\/gen\/index\.js$/ },
    handler: () => ({
      code: `
        export function createConfiguration() {
          throw new Error('the generated models are not in this bundle');
        }
        export class ServerConfiguration {}`,
      moduleType: 'js',
    }),
  },
};

async function renderFacade(name: string): Promise<string> {
  const { files = {}, setUp = '' } = facades[name] ?? {};
  const whole: unknown = await import(name);
  const exported = typeof whole === 'object' && whole !== null ? Object.keys(whole) : [];
  const getters = exported
    .filter((one) => /^[A-Za-z_]\w*$/.test(one) && one !== 'default')
    .map((one) => {
      const file = files[one];
      const piece = file === undefined ? `require('${name}').${one}` : `require('${file}')`;
      return `Object.defineProperty(exports, '${one}', { enumerable: true, get: () => ${piece} });`;
    });
  return [setUp, ...getters].join('\n');
}
