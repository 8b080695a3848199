/** Text of a kubeconfig file for one user of a test cluster. */
import type { ApiAccess } from './api.ts';

export function renderKubeconfig(access: ApiAccess): string {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const { url, caPem, certPem, keyPem, token } = access;
  const cluster = {
    server: url,
    ...(caPem === undefined ? {} : { 'certificate-authority-data': base64(caPem) }),
  };
  const user = {
    ...(certPem === undefined ? {} : { 'client-certificate-data': base64(certPem) }),
    ...(keyPem === undefined ? {} : { 'client-key-data': base64(keyPem) }),
    ...(token === undefined ? {} : { token }),
  };
  // JSON is valid YAML.
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster }],
    users: [{ name: 'test', user }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  });
}
