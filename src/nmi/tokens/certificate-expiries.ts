/**
 * The expiries of the certificates that authenticate identities of this node's pods. A certificate
 * itself is kept for a moment only; its expiry is kept as long as some pod needs it. Per namespace
 * a limited number of Secrets is kept, those that expire first.
 */
import type { ObjectName } from '../../cache/index/object-name.ts';
import type { Sample } from '../base/part.ts';

const maxOfNamespace = 20;
const maxNamespaces = 50;

interface Known<C> {
  readonly credential: C;
  /** Milliseconds since the epoch. */
  readonly expiresAtWallMs: number;
}

export class CertificateExpiries<C> {
  /** By namespace and name of the Secret. */
  readonly #known = new Map<string, Map<string, Known<C>>>();
  readonly #isNeeded: (credential: C) => boolean;

  /** @param isNeeded whether some identity uses the credential now. */
  constructor(isNeeded: (credential: C) => boolean) {
    this.#isNeeded = isNeeded;
  }

  /** @param secret that the certificate was read from; without one, nothing is kept. */
  note(credential: C, secret: ObjectName | undefined, expiresAtWallMs: number): void {
    if (secret === undefined) return;
    const { namespace, name } = secret;
    const known = this.#known.get(namespace);
    if (known === undefined && this.#known.size >= maxNamespaces) this.#dropUnneeded();
    if (known === undefined && this.#known.size >= maxNamespaces) return;
    const ofNamespace = known ?? new Map<string, Known<C>>();
    this.#known.set(namespace, ofNamespace);
    ofNamespace.set(name, { credential, expiresAtWallMs });
    if (ofNamespace.size <= maxOfNamespace) return;
    const [last] = [...ofNamespace].reduce((one, other) =>
      other[1].expiresAtWallMs > one[1].expiresAtWallMs ? other : one,
    );
    ofNamespace.delete(last);
  }

  samples(): readonly Sample[] {
    this.#dropUnneeded();
    return [...this.#known].flatMap(([namespace, ofNamespace]) =>
      [...ofNamespace].map(([name, { expiresAtWallMs }]) => ({
        metric: 'nmi_certificate_expiration_timestamp_seconds' as const,
        labels: { namespace, name },
        value: expiresAtWallMs / 1000,
      })),
    );
  }

  #dropUnneeded(): void {
    for (const [namespace, ofNamespace] of this.#known) {
      for (const [name, { credential }] of ofNamespace) {
        if (!this.#isNeeded(credential)) ofNamespace.delete(name);
      }
      if (ofNamespace.size === 0) this.#known.delete(namespace);
    }
  }
}
