/**
 * Packages that the bundle loads in pieces. A start of the agent needs little of them, but their
 * entry modules evaluate everything. In the bundle, a facade replaces such an entry: it has all its
 * exports, each as a getter that loads a piece at its first use.
 *
 * Measured for a start of the agent with a kubeconfig, medians of 20 on a busy machine: 322 ms of CPU
 * and 101 MB resident without this file, 289 ms and 88 MB with it (Node 26.10, November 2026).
 */
import type { Plugin } from 'rolldown';

interface Facade {
  /** Exports that are in separate files; the others load the package's entry. */
  readonly files?: Readonly<Record<string, string>>;
  /** Side effects of the entry besides its exports. */
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
      Histogram: 'prom-client/lib/histogram.js',
    },
  },
  // Imported by the Kubernetes client's configuration for kubeconfigs, clouds and proxies.
  hpagent: {},
  'js-yaml': {},
  'jsonpath-plus': {},
  'openid-client': {},
  socks: {},
  'socks-proxy-agent': {},
};

const prefix = '\0facade:';

export const lazyPackages: Plugin = {
  name: 'lazy-packages',
  resolveId: {
    filter: { id: new RegExp(`^(?:${Object.keys(facades).join('|')})$`) },
    handler(source, importer) {
      // An import in the facade itself resolves to the package.
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

/** Drops the generated models of the Kubernetes client; only an unused function needs them. */
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

/**
 * No logger of ours has a transport. For one, pino loads worker threads at its start, and asks for the files that
 * call it, for which V8 makes a list of all lines of the script: 0.7 MB that stay.
 */
export const noTransports: Plugin = {
  name: 'no-transports',
  load: {
    filter: { id: /\/pino\/lib\/(?:caller|transport)\.js$/ },
    handler: () => ({ code: 'module.exports = () => [];', moduleType: 'js' }),
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
