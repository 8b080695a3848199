/**
 * A whole body with a bound. Leaving the loop destroys the stream and with it the connection, so that
 * the rest of this answer is not read as another one.
 * @throws what `tooLong` returns.
 */
export async function readBody(
  body: AsyncIterable<Uint8Array>,
  maxBytes: number,
  tooLong: () => Error,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    if (bytes > maxBytes) throw tooLong();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
