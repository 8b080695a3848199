import { CodedError } from '../../../../base/coded-error.ts';

export const keyFileErrorCodes = [
  /** Not opened: too many other files wait, or there is no thread. */
  'BUSY',
  /** Not in the expected format, or damaged. */
  'MALFORMED',
  'WRONG_PASSWORD',
  /** Well-formed, but protected in a way that is not implemented. */
  'UNSUPPORTED',
  /** It requires more work than is allowed for one file. */
  'TOO_COSTLY',
  /** It lacks a key or certificate, or has one that Entra ID cannot use. */
  'UNSUITABLE',
] as const;

export type KeyFileErrorCode = (typeof keyFileErrorCodes)[number];

/** The message is a clause about the file; nothing from the file or its password is in it. */
export class KeyFileError extends CodedError<KeyFileErrorCode> {}
