/**
 * The secret in a file. Editors and shells add a byte order mark, CRLF or blank lines, which `trim` removes. No secret begins or
 * ends with white space.
 */
export const secretText = (content: string): string => content.trim()
