/** Why a file with a certificate and its key cannot be used. */
import { CodedError } from '../../../base/coded-error.ts';

export const keyFileErrorCodes = [
  /** Not opened: too many others wait, or there is no thread. */
  'BUSY',
  /** Not the format it should be, or damaged. */
  'MALFORMED',
  'WRONG_PASSWORD',
  /** Well-formed, and protected in a way that is not implemented. */
  'UNSUPPORTED',
  /** It asks for more work than is done for one file. */
  'TOO_COSTLY',
  /** It lacks a key or certificate, or has one that is of no use to Entra ID. */
  'UNSUITABLE',
] as const;

export type KeyFileErrorCode = (typeof keyFileErrorCodes)[number];

/**
 * The one error of the readers of key files. The message is a clause about the file; it never holds
 * anything the file or its password holds.
 */
export class KeyFileError extends CodedError<KeyFileErrorCode> {}
