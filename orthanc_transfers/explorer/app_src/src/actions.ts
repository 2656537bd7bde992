/** Pause, resume, cancel, resubmit, priority: of one transfer or of many. */
import { post } from './api'
import { t } from './i18n'
import { tell } from './messages'
import { refresh } from './status'
import type { Action } from './types'

export const ACTION_ICONS: Record<string, string> = { pause: 'pause', resume: 'play', cancel: 'x', resubmit: 'arrowClockwise' }

export async function act(action: Action, ids: string[], priority?: number): Promise<void> {
  try {
    const body = action === 'priority' ? { Action: action, IDs: ids, Priority: priority } : { Action: action, IDs: ids }
    const answer = await post('transfers/actions', body)
    const failed = (answer.Results as { Ok: boolean; Error?: string }[]).filter((one) => !one.Ok)
    if (failed.length) tell('bad', failed[0].Error ?? t('error.unknown'))
    else tell('good', t(`done.${action}`, { n: ids.length }))
  } catch (error) {
    tell('bad', error)
  }
  refresh()
}
