/** Secrets of type 1: the entry `clientSecret`, or the only one; formerly any. */
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import { titleOf } from '../../../kube/accounts/secrets.ts';
import { printable, printableList } from '../../../../base/printable.ts';
import type { ClientCredentialResult } from './descriptor.ts';
import { describeSecretKind, invalidCredential } from './secret-credential.ts';
import { parseUtf8, withoutLineEnd } from './secret-entries.ts';

const secretKey = 'clientSecret';

export const secretKind = describeSecretKind(
  { kind: 'secret', type: 1, typeTitle: 'secret', hasAuxiliaryTenants: true },
  () => makeClientSecret,
);

/** Exported for its tests: no I/O. */
export function makeClientSecret(
  secret: ObjectName,
  data: ReadonlyMap<string, Buffer>,
): ClientCredentialResult {
  const title = titleOf(secret);
  const [onlyKey = secretKey] = data.size === 1 ? data.keys() : [];
  const key = data.has(secretKey) ? secretKey : onlyKey;
  const bytes = data.get(key);
  if (bytes === undefined) {
    return invalidCredential(
      data.size === 0
        ? `${title} has no data; put the client secret under the key "${secretKey}"`
        : `${title} has no key "${secretKey}", and of its keys (${printableList([...data.keys()])}) none can be preferred`,
    );
  }
  const text = parseUtf8(bytes);
  if (text === undefined) {
    return invalidCredential(`${title} has no UTF-8 text under the key "${printable(key)}"`);
  }
  // Entra ID would reject a secret with a line end.
  const clientSecret = withoutLineEnd(text);
  if (clientSecret === '') {
    return invalidCredential(`${title} has nothing under the key "${printable(key)}"`);
  }
  return { ok: true, clientCredential: { clientSecret } };
}
