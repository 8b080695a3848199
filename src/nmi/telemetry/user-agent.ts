/** The SDK in `azsdk-LANGUAGE-PACKAGE/VERSION`: of a fixed list, since a pod writes it. Pure. */

/** The identity packages of Azure SDKs; `azsdk-net-core` has those of .NET from April 2026 on. */
export const sdkFamilies = [
  'azsdk-cpp-identity',
  'azsdk-go-azidentity',
  'azsdk-java-azure-identity',
  'azsdk-js-identity',
  'azsdk-net-core',
  'azsdk-net-identity',
  'azsdk-python-identity',
] as const;

export type SdkFamily = (typeof sdkFamilies)[number];

/** The version has up to three numbers; `other` is everything that is no Azure SDK. */
export type ClientName = `${SdkFamily}/${string}` | 'other';

/** The name of an SDK begins before this; the rest is ignored. */
const maxLooked = 256;
const sdk = new RegExp(
  `(?:^|\\s)(${sdkFamilies.join('|')})/v?(\\d{1,5}(?:\\.\\d{1,5}){0,2})(?!\\d)`,
  'i',
);

export function nameClient(userAgent: string): ClientName {
  const [, family, version] = sdk.exec(userAgent.slice(0, maxLooked)) ?? [];
  const known = sdkFamilies.find((each) => each === family?.toLowerCase());
  return known === undefined || version === undefined ? 'other' : `${known}/${version}`;
}
