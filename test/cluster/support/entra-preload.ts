/**
 * Preloaded into the plugin where no Entra ID is available: its token requests are answered here
 * and recorded in the file AZ_LOG. Nothing leaves the process.
 */
import { appendFileSync } from 'node:fs';

globalThis.fetch = (input, init) => {
  const { host, pathname } = new URL(new Request(input).url);
  const form = new URLSearchParams(init?.body instanceof URLSearchParams ? init.body : '');
  const isExchange =
    host === 'login.microsoftonline.com' &&
    form.get('grant_type') === 'client_credentials' &&
    // Three parts: what the API server made for the service account.
    form.get('client_assertion')?.split('.').length === 3;
  if (!isExchange)
    return Promise.resolve(Response.json({ error: 'invalid_request' }, { status: 400 }));
  const line = `exchanged ${pathname} for ${form.get('client_id') ?? ''}\n`;
  appendFileSync(process.env['AZ_LOG'] ?? '', line);
  return Promise.resolve(Response.json({ access_token: 'a.b.c', expires_in: 3600 }));
};
