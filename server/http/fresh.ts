import type { AppContext } from './env.ts'

/** Whether the client has the document of this ETag. It sends the tag back as it was given (RFC 9110 13.1.2). */
export function isFresh(c: AppContext, tag: string): boolean {
  const tags = c.req
    .header('if-none-match')
    ?.split(',')
    .map(one => one.trim())
  return tags?.some(one => one === '*' || one === tag) ?? false
}
