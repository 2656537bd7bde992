/** Requests to this Orthanc. Its root is found from the address of this script: a proxy may serve it below a prefix. */
const script = import.meta.url
export const root = import.meta.env.DEV ? '/' : script.slice(0, script.lastIndexOf('/transfers/') + 1)

/** The token of the authorization plugin, which came with the address of the page, goes into each request. */
export const token = new URLSearchParams(location.search).get('token')

/** What a user is told of a request that failed: one sentence. */
export class RequestError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message)
  }
}

async function request(method: string, path: string, body?: unknown): Promise<any> {
  const headers: Record<string, string> = {}
  if (token) headers.token = token
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  let response: Response
  try {
    response = await fetch(root + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
    })
  } catch {
    throw new RequestError('', 0)
  }
  const text = await response.text()
  let value: any = null
  try {
    value = text ? JSON.parse(text) : null
  } catch {
    if (response.ok) value = text
  }
  if (!response.ok) {
    throw new RequestError(String(value?.Details || value?.Message || `${response.status} ${response.statusText}`), response.status)
  }
  return value
}

export const get = (path: string) => request('GET', path)
export const post = (path: string, body: unknown = {}) => request('POST', path, body)
export const put = (path: string, body: unknown) => request('PUT', path, body)
export const remove = (path: string) => request('DELETE', path)

/** The address of a file for links, which send no headers. */
export function link(path: string): string {
  return root + path + (token ? `${path.includes('?') ? '&' : '?'}token=${encodeURIComponent(token)}` : '')
}
