/** Which Azure SDKs know Workload Identity: the versions that Microsoft's page on it asks for. */
import type { SdkFamily } from '../../nmi/telemetry/user-agent.ts';

interface Sdk {
  /** As a developer knows it. */
  readonly title: string;
  /** The first version that knows Workload Identity; undefined where all that ask IMDS do. */
  readonly minimum: string | undefined;
}

const sdks: Readonly<Record<SdkFamily, Sdk>> = {
  'azsdk-cpp-identity': { title: 'azure-identity-cpp', minimum: '1.6.0' },
  'azsdk-go-azidentity': { title: 'azidentity for Go', minimum: '1.3.0' },
  'azsdk-java-azure-identity': { title: 'azure-identity for Java', minimum: '1.9.0' },
  'azsdk-js-identity': { title: '@azure/identity for JavaScript', minimum: '3.2.0' },
  // The credentials moved there years after they knew Workload Identity.
  'azsdk-net-core': { title: 'Azure.Core for .NET', minimum: undefined },
  'azsdk-net-identity': { title: 'Azure.Identity for .NET', minimum: '1.9.0' },
  'azsdk-python-identity': { title: 'azure-identity for Python', minimum: '1.13.0' },
};

/** A sentence with all minimum versions. */
export const sdkRule = `Pods need an SDK that knows Workload Identity: ${Object.values(sdks)
  .flatMap(({ title, minimum }) => (minimum === undefined ? [] : [`${title} ${minimum}`]))
  .join(', ')}, or later.`;

/** What a client that an agent saw means for a move to Workload Identity. */
export type SdkVerdict =
  | { readonly kind: 'knows'; readonly title: string; readonly version: string }
  | {
      readonly kind: 'too-old';
      readonly title: string;
      readonly version: string;
      readonly minimum: string;
    }
  /** No Azure SDK that is known here. */
  | { readonly kind: 'unknown' };

/** @param client as the agent names it: `azsdk-python-identity/1.12.0`, or `other`. */
export function classifySdk(client: string): SdkVerdict {
  const [family = '', version = ''] = client.split('/', 2);
  const sdk = Object.entries(sdks).find(([name]) => name === family)?.[1];
  if (sdk === undefined || !/^\d+(?:\.\d+)*$/.test(version)) return { kind: 'unknown' };
  const { title, minimum } = sdk;
  return minimum === undefined || isAtLeast(version, minimum)
    ? { kind: 'knows', title, version }
    : { kind: 'too-old', title, version, minimum };
}

function isAtLeast(version: string, minimum: string): boolean {
  const [have, want] = [version, minimum].map((text) => text.split('.').map(Number));
  for (const [index, number] of (want ?? []).entries()) {
    const other = have?.[index] ?? 0;
    if (other !== number) return other > number;
  }
  return true;
}
